"""Calls that a request forces: always valid calls of permitted tools, whoever drafts."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Generator
from typing import Any, NamedTuple

import pytest

from draftsmith.constraints.grammars import grammars_of
from draftsmith.core.gamma import Gamma
from draftsmith.engine.engine import Engine
from draftsmith.models.hf.load import wrap_tokenizer
from draftsmith.serve.calling import calling_of
from draftsmith.serve.schemas.answers import ChatChunk
from draftsmith.serve.schemas.chat import ChatRequest
from draftsmith.serve.tools import CallReader, calls_in
from tests import tiny
from tests.serve import live
from tests.serve.live import Answer, Live, text_of

_PATH = "/v1/chat/completions"
_TOLD = "{% for tool in tools or [] %}{{ tool['function']['name'] }} "
_TALK = "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}<bot>"
_TEMPLATES = {
    "tags": _TOLD + "<tool_call>{% endfor %}" + _TALK,
    "bare": _TOLD + "{% endfor %}" + _TALK,
}
_FOX = {
    "type": "object",
    # Where an option of a rule in a grammar would be refused.
    "description": "[stop = 3] ::= fox",
    "properties": {"dog": {"enum": ["lazy", "quick = é"]}, "age": {"$ref": "#/$defs/age"}},
    "required": ["dog", "age"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
}


def _tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "parameters": parameters, **more}
    return {"type": "function", "function": function}


_TOOLS = [_tool("fox", _FOX), _tool("nothing")]
_BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "the quick brown"}],
    "tools": _TOOLS,
    "max_tokens": 400,
    "seed": 1,
}


def _some(mode: str, *names: str) -> dict[str, Any]:
    """The choice of some of the tools."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


class Pair(NamedTuple):
    """Two servers of one model."""

    kind: str
    drafting: Live
    plain: Live


def _engine(kind: str, gamma: Gamma) -> Engine:
    raw = tiny.raw_tokenizer()
    raw.chat_template = _TEMPLATES[kind]
    draft = live.model_draft() if gamma else None
    return Engine(live.target(), wrap_tokenizer(raw), draft, gamma=gamma)


@pytest.fixture(scope="module", params=["tags", "bare"])
def pair(request: pytest.FixtureRequest) -> Generator[Pair]:
    kind = request.param
    with live.serving(_engine(kind, 3)) as drafting, live.serving(_engine(kind, 0)) as plain:
        yield Pair(kind, drafting, plain)


def _calls(answer: Answer, choice: int = 0) -> list[tuple[str, str]]:
    """Names and arguments of a choice's calls."""
    assert answer.status == 200, answer.body
    message = answer.body["choices"][choice]["message"]
    assert message["content"] is None
    functions = [one["function"] for one in message["tool_calls"]]
    return [(one["name"], one["arguments"]) for one in functions]


def _fits(name: str, arguments: str) -> bool:
    found = json.loads(arguments)
    if name == "nothing":
        return found == {}
    is_fox = name == "fox" and list(found) == ["dog", "age"]
    return is_fox and found["dog"] in ("lazy", "quick = é") and 0 <= found["age"] <= 99


def test_a_required_call_is_valid_and_the_same_whoever_drafts(pair: Pair) -> None:
    for seed in range(6):
        body = _BODY | {"tool_choice": "required", "seed": seed, "parallel_tool_calls": False}
        answer = pair.drafting.post(_PATH, **body)
        [(name, arguments)] = calls = _calls(answer)
        assert _fits(name, arguments)
        assert calls == _calls(pair.plain.post(_PATH, **body))
        assert answer.body["choices"][0]["finish_reason"] == "tool_calls"


def test_a_named_tool_is_called_once(pair: Pair) -> None:
    choice = {"type": "function", "function": {"name": "fox"}}
    body = _BODY | {"tool_choice": choice, "n": 3}
    answer = pair.drafting.post(_PATH, **body)
    told = [_calls(answer, number) for number in range(3)]
    assert told == [_calls(pair.plain.post(_PATH, **body), number) for number in range(3)]
    assert all(name == "fox" and _fits(name, arguments) for [(name, arguments)] in told)
    # OpenAI's API has this, and not tool_calls, where a function is named.
    assert [one["finish_reason"] for one in answer.body["choices"]] == ["stop"] * 3


def test_there_may_be_several_calls_unless_they_are_declined(pair: Pair) -> None:
    # Longer than one call is.
    body = _BODY | {"tool_choice": "required", "tools": [_tool("nothing")], "min_tokens": 90}
    several, one = ({"parallel_tool_calls": flag} for flag in (True, False))
    if pair.kind == "tags":
        calls = _calls(pair.plain.post(_PATH, **body | several))
        assert len(calls) > 1
        assert set(calls) == {("nothing", "{}")}
        assert calls == _calls(pair.drafting.post(_PATH, **body))
        assert _put_together(pair.drafting.stream(_PATH, **body), 0) == calls
    body |= {"min_tokens": 0}
    assert len(_calls(pair.plain.post(_PATH, **body | one))) == 1


def _put_together(chunks: list[Any], choice: int) -> list[tuple[str, str]]:
    """A stream's calls, as clients put them together."""
    found: list[tuple[str, str]] = []
    for chunk in chunks[:-1]:
        for one in chunk["choices"]:
            for delta in one["delta"].get("tool_calls", ()) if one["index"] == choice else ():
                function = delta["function"]
                if delta["index"] == len(found):
                    assert delta["id"].startswith("call_")
                    assert delta["type"] == "function"
                    found.append((function["name"], function["arguments"]))
                    continue
                assert delta.keys() == {"index", "function"}
                assert delta["index"] == len(found) - 1
                name, arguments = found[-1]
                found[-1] = (name, arguments + function["arguments"])
    return found


def test_a_stream_tells_calls_in_pieces(pair: Pair) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "fox"}}):
        body = _BODY | {"tool_choice": choice, "n": 2, "max_tokens": 200}
        answer = pair.drafting.post(_PATH, **body)
        chunks = pair.drafting.stream(_PATH, **body)
        for chunk in chunks[:-1]:
            ChatChunk.model_validate(chunk)
        for number in range(2):
            assert _put_together(chunks, number) == _calls(answer, number)
            ends = [one for chunk in chunks[:-1] for one in chunk["choices"]]
            ends = [one["finish_reason"] for one in ends if one["index"] == number]
            told = answer.body["choices"][number]["finish_reason"]
            assert ends == [*[None] * (len(ends) - 1), told]
    pieces = [one["choices"][0]["delta"].get("tool_calls") for one in chunks[:-1]]
    assert len([one for one in pieces if one]) > 2


def test_a_call_that_is_cut_says_so(pair: Pair) -> None:
    choice = {"type": "function", "function": {"name": "fox"}}
    whole = _calls(pair.plain.post(_PATH, **_BODY | {"tool_choice": choice}))[0][1]
    lengths: set[int] = set()
    for most in range(1, 60, 7):
        body = _BODY | {"tool_choice": choice, "max_tokens": most}
        told = pair.plain.post(_PATH, **body).body["choices"][0]
        if told["finish_reason"] == "stop":
            break
        assert told["finish_reason"] == "length"
        for call in told["message"].get("tool_calls", ()):
            assert whole.startswith(call["function"]["arguments"])
            lengths.add(len(call["function"]["arguments"]))
        assert _put_together(pair.plain.stream(_PATH, **body), 0) == [
            ("fox", call["function"]["arguments"]) for call in told["message"].get("tool_calls", ())
        ]
    assert len(lengths) > 1


def test_what_forces_a_call_is_drafted_for_free(pair: Pair) -> None:
    body = _BODY | {"tool_choice": "required", "speculation": {"statistics": True}}
    usage = pair.drafting.post(_PATH, **body).body["usage"]
    assert usage["speculation"]["tokens_per_pass"] > 2


def _taken(engine: Engine, fields: dict[str, Any], text: str, kind: str) -> bool:
    """Whether the form of some fields takes a whole text."""
    body = ChatRequest.model_validate(_BODY | fields)
    form = calling_of(body, _TEMPLATES[kind]).form()
    assert form is not None
    tokenizer, traits = engine.tokenizer, engine.target.traits
    assert tokenizer is not None
    ends = frozenset(traits.eos_token_ids)
    walk = grammars_of(tokenizer, traits.vocab_size, ends).compiled(form).begin()
    tokens = [*tokenizer.encode_plain(text), min(ends)]
    return walk.num_allowed([], tokens) == len(tokens)


def _written(kind: str, *calls: tuple[str, str]) -> str:
    if kind == "bare":
        [(name, arguments)] = calls
        return f'{{"name": "{name}", "parameters": {arguments}}}'
    texts = [f'{{"name": "{name}", "arguments": {arguments}}}' for name, arguments in calls]
    return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)


def test_strict_arguments_fit_where_a_call_is_chosen(pair: Pair) -> None:
    kind, engine = pair.kind, pair.plain.service.engine
    any_ = _tool("any", {"minProperties": 0}, strict=True)
    tools = [_tool("fox", _FOX, strict=True), _tool("other", {"type": "string"}), any_]
    strict = {"tools": tools}
    good = ("fox", '{"dog": "lazy", "age": 3}')
    for text, is_taken in (
        ("", True),
        ("  \n", True),
        ("a fox < tool_call> {", True),
        (_written(kind, good), True),
        (_written(kind, ("fox", '{"dog": "lazy"}')), False),
        (_written(kind, ("other", '{"any": [1, {}]}')), True),
        (_written(kind, ("any", '{"a": 1}')), True),
        (_written(kind, ("any", "3")), False),
        (_written(kind, ("cat", "{}")), False),
        ("well <tool_call>" if kind == "tags" else "{no call", False),
    ):
        assert _taken(engine, strict, text, kind) == is_taken, text
    if kind == "tags":
        for text, most in ((_written(kind, good, good), 2), ("é " + _written(kind, good), 1)):
            assert _taken(engine, strict, text, kind)
            one = strict | {"parallel_tool_calls": False}
            assert _taken(engine, one, text, kind) == (most == 1)


def test_of_some_tools_the_others_are_not_called(pair: Pair) -> None:
    kind, engine = pair.kind, pair.plain.service.engine
    nothing, fox = ("nothing", "{}"), ("fox", '{"dog": "lazy", "age": 3}')
    for mode, texts in (("auto", True), ("required", False)):
        some = {"tool_choice": _some(mode, "fox")}
        assert _taken(engine, some, "a fox", kind) == texts
        assert _taken(engine, some, _written(kind, fox), kind)
        assert not _taken(engine, some, _written(kind, nothing), kind)
    body = _BODY | {"tool_choice": _some("required", "fox"), "parallel_tool_calls": False}
    answer = pair.drafting.post(_PATH, **body)
    [(name, arguments)] = _calls(answer)
    assert name == "fox"
    assert _fits(name, arguments)
    assert answer.body["choices"][0]["finish_reason"] == "tool_calls"


def test_strict_texts_are_the_same_whoever_drafts(pair: Pair) -> None:
    strict = _BODY | {"tools": [_tool("fox", _FOX, strict=True)], "max_tokens": 80}
    for seed in range(3):
        body = strict | {"seed": seed}
        assert pair.drafting.post(_PATH, **body).texts == pair.plain.post(_PATH, **body).texts
    if pair.kind == "bare":
        brace = pair.plain.post("/tokenize", prompt="{", add_special_tokens=False).body["tokens"]
        led = pair.drafting.post(_PATH, **strict | {"logit_bias": {str(brace[0]): 100.0}})
        [(name, arguments)] = [
            (one["function"]["name"], one["function"]["arguments"])
            for one in led.body["choices"][0]["message"]["tool_calls"]
        ]
        assert _fits(name, arguments)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": "required", "tools": None}, "tool_choice", "there are no tools"),
        ({"tool_choice": _some("auto", "cat")}, "tool_choice", "got 'cat'"),
        ({"tool_choice": _some("auto")}, "tool_choice.allowed_tools.tools", "at least 1 item"),
        (
            {"tool_choice": _some("auto", "fox"), "response_format": {"type": "json_object"}},
            "tool_choice",
            "both ask for a form",
        ),
        ({"tool_choice": "required", "tools": []}, "tool_choice", "there are no tools"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "cat"}}},
            "tool_choice",
            "one of tools (fox, nothing), got 'cat'",
        ),
        ({"tool_choice": "never"}, "tool_choice", "never"),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "fox"}}},
            "tool_choice",
            "'custom'",
        ),
        (
            {"tool_choice": "required", "response_format": {"type": "json_object"}},
            "tool_choice",
            "both ask for a form",
        ),
        (
            {"tool_choice": "required", "structured_outputs": {"regex": "a"}},
            "tool_choice",
            "both ask for a form",
        ),
        (
            {"tools": [_tool("a", strict=True)], "response_format": {"type": "json_object"}},
            "tools[0].function.strict",
            "both ask for a form",
        ),
        (
            {"tool_choice": "required", "tools": [*_TOOLS, _tool("a", {"not": {}})]},
            "tools[2].function.parameters",
            'Unimplemented keys: ["not"]',
        ),
        (
            {"tools": [*_TOOLS, _tool("a", {"multipleOf": 1234567}, strict=True)]},
            "tools[2].function.parameters",
            "multipleOf 1234567",
        ),
        (
            {"tool_choice": "required", "tools": [_tool("a", {"type": "string"})]},
            "tools[0].function.parameters",
            "'string'",
        ),
        (
            {"tool_choice": "required", "tools": [_tool("a", {"description": "x" * 300_000})]},
            "tools[0].function.parameters",
            "262144",
        ),
        (
            {"tool_choice": "required", "tools": [_tool("a", {"description": "x" * 140_000})] * 2},
            "tools",
            "262144",
        ),
        (
            {"tool_choice": "required", "tools": [*_TOOLS, _tool("a", {"enum": ["\ud800"]})]},
            "tools[2].function.parameters",
            "hex escape",
        ),
        ({"tool_choice": "required", "ignore_eos": True}, "ignore_eos", "ignore_eos"),
    ],
)
def test_what_cannot_be_forced_is_refused_by_name(
    pair: Pair, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = pair.drafting.post(_PATH, **_BODY | fields)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param, answer.error
    assert words in answer.error["message"]


def test_one_call_at_most_is_a_form_of_its_own(pair: Pair) -> None:
    form = {"response_format": {"type": "json_object"}, "parallel_tool_calls": False}
    answer = pair.drafting.post(_PATH, **_BODY | form | {"max_tokens": 5})
    if pair.kind == "bare":
        assert answer.status == 200
    else:
        assert (answer.status, answer.error["param"]) == (400, "parallel_tool_calls")
    body = _BODY | {"parallel_tool_calls": False, "max_tokens": 40}
    assert text_of(pair.drafting.stream(_PATH, **body)) == pair.plain.post(_PATH, **body).texts[0]


def test_a_reader_of_calls_takes_any_pieces() -> None:
    arguments = ['{"a": "}\\\\\\"{", "b": [{"c": {}}]}', '{"d": "\\\\"}', "{}"]
    calls = "\n".join(
        f'<tool_call>\n{{"name": "f", "arguments": {one}}}\n</tool_call>' for one in arguments
    )
    for size in (1, 2, 3, 7, 1000):
        reader, told = CallReader(), [""] * 3
        for start in range(0, len(calls), size):
            for delta in reader.push(calls[start : start + size]):
                told[delta["index"]] += delta["function"]["arguments"]
        assert told == arguments
        assert reader.is_whole


def test_arguments_are_told_as_they_were_written() -> None:
    for written in ('{"a": 1e999, "b" :12345678901234567890.10, "c": "\\u00e9"}', "{ }"):
        [call] = calls_in(f' {{"name": "f" , "parameters":{written} }} ', "bare").calls
        assert call["function"]["arguments"] == written
    assert not calls_in('{"name": "f", "parameters": {"a": NaN}}', "bare").calls
