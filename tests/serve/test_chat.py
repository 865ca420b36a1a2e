"""`/v1/chat/completions`: shapes, and the engine's own texts."""

from typing import Any

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import LanguageModel
from tests.engine import kit
from tests.serve.live import Live, text_of

_PATH = "/v1/chat/completions"
_TURNS = [{"role": "user", "content": "the quick brown"}]


def _own(target: LanguageModel, **sampling: Any) -> str:
    """What an engine says itself."""
    engine = Engine(target, kit.text_tokenizer())
    return engine.generate(_TURNS, SamplingParams(temperature=1.0, **sampling))[0].text


def test_the_answer_is_the_engines(server: Live, plain: Live) -> None:
    answer = server.chat(seed=5, max_tokens=40)
    assert answer.status == 200
    [choice] = answer.body["choices"]
    assert choice["message"]["role"] == "assistant"
    own = _own(plain.service.engine.target, seed=5, max_tokens=40)
    assert choice["message"]["content"] == own == plain.chat(seed=5, max_tokens=40).texts[0]
    assert choice["finish_reason"] in ("stop", "length")
    assert answer.body["object"] == "chat.completion"
    assert answer.body["model"] == "tiny"
    usage = answer.body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_is_the_same_text_in_pieces(server: Live) -> None:
    whole = server.chat(seed=5, max_tokens=40, n=3)
    chunks = server.stream(_PATH, messages=_TURNS, seed=5, max_tokens=40, n=3)
    assert chunks[-1] == "[DONE]"
    assert [text_of(chunks, choice) for choice in range(3)] == whole.texts
    first = chunks[0]["choices"]
    assert [one["index"] for one in first] == [0, 1, 2]
    assert all(one["delta"] == {"role": "assistant", "content": ""} for one in first)
    ends = [one for chunk in chunks[:-1] for one in chunk["choices"] if one["finish_reason"]]
    assert sorted(one["index"] for one in ends) == [0, 1, 2]
    assert "usage" not in chunks[0]


def test_usage_ends_a_stream_that_asks_for_it(server: Live) -> None:
    options = {"include_usage": True}
    chunks = server.stream(
        _PATH, messages=_TURNS, seed=5, max_tokens=9, ignore_eos=True, stream_options=options
    )
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["completion_tokens"] == 9
    assert all(chunk["usage"] is None for chunk in chunks[:-2])


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_unknown_field_is_named(server: Live, is_streamed: bool) -> None:
    answer = server.chat(temprature=0.5, stream=is_streamed)
    assert answer.status == 400
    assert answer.error["param"] == "temprature"
    assert "temprature" in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"


def test_models_and_health(server: Live) -> None:
    assert server.get("/v1/models").body["data"][0]["id"] == "tiny"
    assert server.get("/v1/models/tiny").body["id"] == "tiny"
    assert server.get("/v1/models/other").status == 404
    assert server.get("/health").status == server.get("/ready").status == 200
    assert "version" in server.get("/version").body
