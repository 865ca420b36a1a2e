"""What cannot be honoured is refused by name, in OpenAI's shape."""

from typing import Any

import pytest

from tests.serve import live
from tests.serve.live import Live

_TURNS = [{"role": "user", "content": "hi"}]
_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_CALLS = {"role": "assistant", "tool_calls": [_CALL]}
_LOGPROBS = "message.output_text.logprobs"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"temperature": 3}, "temperature"),
    ("chat", {"temperature": "hot"}, "temperature"),
    ("chat", {"temperature": "0.5"}, "temperature"),
    ("chat", {"top_p": 0}, "top_p"),
    ("chat", {"n": 0}, "n"),
    ("chat", {"n": 100}, "n"),
    ("chat", {"stop": [""]}, "stop[0]"),
    ("chat", {"stop": ["x"] * 17}, "stop"),
    ("chat", {"seed": 1.5}, "seed"),
    ("chat", {"seed": True}, "seed"),
    ("chat", {"seed": 1 << 64}, "seed"),
    ("chat", {"store": True}, "store"),
    ("chat", {"store": 0}, "store"),
    ("chat", {"logit_bias": {"x": 1}}, "logit_bias.x"),
    ("chat", {"logit_bias": {"99999": 1}}, "logit_bias"),
    ("chat", {"logit_bias": {"4": 101}}, "logit_bias['4']"),
    ("chat", {"top_logprobs": 3}, "top_logprobs"),
    ("chat", {"logprobs": True, "top_logprobs": 30}, "top_logprobs"),
    ("chat", {"max_tokens": 0}, "max_tokens"),
    ("chat", {"max_tokens": 100000}, "max_tokens"),
    ("chat", {"max_completion_tokens": 100000}, "max_completion_tokens"),
    ("chat", {"max_tokens": 500, "min_tokens": 501}, "min_tokens"),
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat", {"messages": [{"role": "pope", "content": "x"}]}, "messages[0].role"),
    ("chat", {"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
    ("chat", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ("chat", {"messages": [_CALLS | {"tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
    ("chat", {"messages": [_CALLS | {"mood": 1}]}, "messages[0].mood"),
    ("chat", {"messages": [3]}, "messages[0]"),
    ("chat", {"response_format": {"type": "yaml"}}, "response_format"),
    ("chat", {"reasoning_effort": "low"}, "reasoning_effort"),
    ("chat", {"stream_options": {"include_usge": True}}, "stream_options.include_usge"),
    ("chat", {"speculation": {"gamma": 40}}, "speculation.gamma"),
    ("chat", {"speculation": {"gamma": "auto"}}, "speculation.gamma"),
    ("chat", {"speculation": {"draft": "other"}}, "speculation.draft"),
    ("chat", {"speculation": {"draft": "none", "gamma": 3}}, "speculation.draft"),
    ("chat", {"timeout": 0.5}, "timeout"),
    ("completions", {"best_of": 2}, "best_of"),
    ("completions", {"logprobs": 30}, "logprobs"),
    ("completions", {"suffix": "x"}, "suffix"),
    ("completions", {"prompt": ""}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": [99999]}, ""),
    ("completions", {"prompt": ["a", 3]}, "prompt[0]"),
    ("completions", {"echo": True, "logprobs": 1}, "echo"),
    ("responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", {"store": True}, "store"),
    ("responses", {"text": {"format": {"type": "yaml"}}}, "text.format"),
    ("responses", {"tools": [{"type": "web_search"}]}, "tools"),
    ("responses", {"n": 2}, "n"),
    ("responses", {"max_output_tokens": 100000}, "max_output_tokens"),
    ("responses", {"top_logprobs": 30, "include": [_LOGPROBS]}, "top_logprobs"),
]
_PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": _TURNS}),
    "completions": ("/v1/completions", {"prompt": "hi"}),
    "responses": ("/v1/responses", {"input": "hi"}),
}


@pytest.mark.parametrize(("place", "field", "param"), WRONG)
def test_a_wrong_field_is_named(
    server: Live, place: str, field: dict[str, Any], param: str
) -> None:
    path, body = _PLACES[place]
    answer = server.post(path, **(body | field))
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.error["param"] or "") == param, answer.error
    assert "\n" not in answer.error["message"]


def test_a_prompt_that_is_too_long_says_so(server: Live) -> None:
    answer = server.complete([5] * 600)
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"


def test_another_model_is_not_found(server: Live) -> None:
    answer = server.chat(model="gpt-4o")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(server: Live, body: bytes) -> None:
    answer = server.call("POST", "/v1/chat/completions", body)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"


def test_a_path_that_is_not_there_and_a_method_that_is_not_either(server: Live) -> None:
    assert server.get("/v1/nothing").error["type"] == "not_found_error"
    answer = server.get("/v1/chat/completions")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def _divide(*arguments: object) -> float:
    return len(arguments) / 0


def test_what_nobody_has_foreseen_is_an_error_in_the_same_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with live.serving(live.engine(gamma=0)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(server.service.worker, "submit", _divide)
            answer = server.complete("the")
        assert (answer.status, answer.error["type"]) == (500, "server_error")
        assert "ZeroDivisionError" in answer.error["message"]
        assert server.complete("the").status == 200


def test_half_a_surrogate_pair_is_refused(server: Live) -> None:
    for text in (b'"\\ud800"', b'"a\\udc80b"'):
        body = b'{"messages": [{"role": "user", "content": ' + text + b"}]}"
        assert server.call("POST", "/v1/chat/completions", body).status == 400
