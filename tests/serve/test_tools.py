"""Calls of tools: told to the model by its template, and found in what it writes."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Generator
from typing import Any

import pytest
from openai import OpenAI

from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.hf.load import wrap_tokenizer
from draftsmith.serve.tools import calls_in, safe_length
from tests import tiny
from tests.serve import live
from tests.serve.live import Live, text_of

_PATH = "/v1/chat/completions"
_TALK = (
    "{% for message in messages %}<user>{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ call['function']['arguments']['x'] }}"
    "{% endfor %}{% endfor %}<bot>"
)
_TOLD = "{% for tool in tools or [] %}{{ tool['function']['name'] }} "
_TEMPLATES = {
    "tags": _TOLD + "<tool_call>{% endfor %}" + _TALK,
    "bare": _TOLD + "{% endfor %}" + _TALK,
}
_CALLS = {
    "tags": 'a fox <tool_call>\n{"name": "add", "arguments": {"x": "é"}}\n</tool_call>',
    "bare": '{"name": "add", "parameters": {"x": "é"}}',
}
_TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
_TURNS = [{"role": "user", "content": "the quick brown"}]


def _writing(text: str) -> dict[str, Any]:
    """A request whose answer is this text."""
    form = {"choice": [text]}
    return {"messages": _TURNS, "tools": _TOOLS, "structured_outputs": form, "max_tokens": 200}


@pytest.fixture(scope="module", params=["tags", "bare"])
def told(request: pytest.FixtureRequest) -> Generator[tuple[str, Live]]:
    """A server whose template tells of tools, in one of the two formats."""
    raw = tiny.raw_tokenizer()
    raw.chat_template = _TEMPLATES[request.param]
    engine = Engine(live.target(), wrap_tokenizer(raw), PromptLookupDrafter(), gamma=2)
    with live.serving(engine) as server:
        yield request.param, server


def test_a_call_is_told_as_openai_tells_it(told: tuple[str, Live]) -> None:
    kind, server = told
    choice = server.post(_PATH, **_writing(_CALLS[kind])).body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == ("a fox" if kind == "tags" else None)
    [call] = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"x": "é"}


def test_a_stream_holds_a_call_back_until_it_is_whole(told: tuple[str, Live]) -> None:
    kind, server = told
    chunks = server.stream(_PATH, **_writing(_CALLS[kind]))
    assert text_of(chunks) == ("a fox" if kind == "tags" else "")
    last = chunks[-2]["choices"][0]
    assert last["finish_reason"] == "tool_calls"
    assert last["delta"]["tool_calls"][0]["index"] == 0
    assert json.loads(last["delta"]["tool_calls"][0]["function"]["arguments"]) == {"x": "é"}


def test_a_text_without_a_call_is_a_text(told: tuple[str, Live]) -> None:
    _, server = told
    for text in ("a fox < tool", "{a fox", "fox <tool_call>{no json"):
        choice = server.post(_PATH, **_writing(text)).body["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
        assert text_of(server.stream(_PATH, **_writing(text))) == text


def test_tools_change_the_prompt_unless_they_are_declined(told: tuple[str, Live]) -> None:
    _, server = told
    body = {"messages": _TURNS, "seed": 3, "max_tokens": 20}
    usual = server.post(_PATH, **body)
    with_tools = server.post(_PATH, **body, tools=_TOOLS)
    assert with_tools.body["usage"]["prompt_tokens"] > usual.body["usage"]["prompt_tokens"]
    declined = server.post(_PATH, **body, tools=_TOOLS, tool_choice="none")
    assert declined.texts == usual.texts


def test_calls_and_their_results_go_to_the_template(told: tuple[str, Live]) -> None:
    _, server = told
    call = {"id": "call_1", "type": "function", "function": {"name": "add"}}
    turns: list[dict[str, Any]] = [
        *_TURNS,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    call["function"] = {"name": "add", "arguments": '{"x": "lazy"}'}
    ids = server.post("/tokenize", messages=turns).body["tokens"]
    text = server.post("/detokenize", tokens=ids).body["prompt"]
    assert "lazy" in text
    assert "42" in text
    turns[1]["content"] = [{"type": "text", "text": "well"}]
    assert server.post("/tokenize", messages=turns).status == 200
    call["function"] = {"name": "add", "arguments": "{"}
    answer = server.post(_PATH, messages=turns, max_tokens=2)
    assert answer.status == 400
    assert "arguments" in answer.error["param"]


def test_the_official_client_reads_calls(told: tuple[str, Live]) -> None:
    kind, server = told
    form = {"structured_outputs": {"choice": [_CALLS[kind]]}}
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        asked: Any = {"model": "tiny", "messages": _TURNS, "tools": _TOOLS, "max_tokens": 200}
        with client.chat.completions.stream(**asked, extra_body=form) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "add"


def test_a_template_that_tells_of_no_tools_is_refused(server: Live) -> None:
    answer = server.post(_PATH, messages=_TURNS, tools=_TOOLS)
    assert (answer.status, answer.error["param"]) == (400, "tools")


def test_no_letter_of_a_call_is_sent_before_it_is_whole() -> None:
    text = 'well <tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>'
    lengths = [safe_length(text[:end], "tags") for end in range(len(text) + 1)]
    assert max(lengths) == len("well")
    assert [call["function"]["name"] for call in calls_in(text, "tags").calls] == ["f", "g"]
    assert safe_length("< b", "tags") == 3
    assert safe_length('{"a', "bare") == 0
