"""Every sampling field of a request: the engine's own text of it, speculation on and off."""

from typing import Any

import pytest

from draftsmith.core.params import SamplingParams
from tests.serve import live
from tests.serve.live import Live

_PROMPT = "the quick brown fox jumps over the lazy dog the quick"
_BASE: dict[str, Any] = {"seed": 11, "max_tokens": 48}
FIELDS: list[tuple[str, Any, dict[str, Any]]] = [
    ("temperature", 0, {"temperature": 0.0}),
    ("temperature", 0.7, {"temperature": 0.7}),
    ("top_p", 0.8, {"top_p": 0.8}),
    ("top_k", 4, {"top_k": 4}),
    ("min_p", 0.1, {"min_p": 0.1}),
    ("repetition_penalty", 1.3, {"repetition_penalty": 1.3}),
    ("presence_penalty", 1.5, {"presence_penalty": 1.5}),
    ("frequency_penalty", 1.5, {"frequency_penalty": 1.5}),
    ("logit_bias", {"40": 8.0, "41": -100}, {"logit_bias": {40: 8.0, 41: -100.0}}),
    ("seed", 12, {"seed": 12}),
    ("seed", -3, {"seed": (1 << 64) - 3}),
    ("max_tokens", 7, {"max_tokens": 7}),
    ("min_tokens", 20, {"min_tokens": 20}),
    ("ignore_eos", True, {"ignore_eos": True}),
    ("stop_token_ids", list(range(60, 90)), {"stop_token_ids": tuple(range(60, 90))}),
    ("n", 3, {"n": 3}),
]
"""The field, its value, and what it is in Python."""


@pytest.mark.parametrize(("name", "value", "sampling"), FIELDS)
def test_a_field_gives_the_engines_text_with_speculation_on_and_off(
    server: Live, plain: Live, name: str, value: Any, sampling: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"temperature": 1.0} | _BASE | sampling
    own = live.engine(gamma=0).generate(_PROMPT, SamplingParams(**asked))[0]
    expected = [one.text for one in own.completions]
    usual = server.complete(_PROMPT, **_BASE).texts
    for one in (server, plain):
        answer = one.complete(_PROMPT, **(_BASE | {name: value}))
        assert answer.status == 200, answer.body
        assert answer.texts == expected
        assert answer.body["usage"]["completion_tokens"] == sum(
            len(done.token_ids) for done in own.completions
        )
    if name not in ("ignore_eos", "min_tokens"):
        assert expected != usual, "the field must show"


@pytest.mark.parametrize("stop", [["fox"], "e", ["zz", "ow"]])
def test_a_stop_string_ends_the_text_and_is_cut_off(server: Live, plain: Live, stop: Any) -> None:
    bias = {"logit_bias": {"40": 3.0}}
    whole = server.complete(_PROMPT, **_BASE, **bias, ignore_eos=True).texts[0]
    strings = [stop] if isinstance(stop, str) else stop
    cut = whole
    for one in strings:
        cut = min(cut, whole.partition(one)[0], key=len)
    for one in (server, plain):
        answer = one.complete(_PROMPT, **_BASE, **bias, ignore_eos=True, stop=stop)
        assert answer.texts == [cut]
        chunks = one.stream(
            "/v1/completions", prompt=_PROMPT, **_BASE, **bias, ignore_eos=True, stop=stop
        )
        assert live.text_of(chunks) == cut


def test_the_context_is_the_default_length_of_a_chat(server: Live) -> None:
    answer = server.chat(seed=3, ignore_eos=True)
    usage = answer.body["usage"]
    assert usage["total_tokens"] == live.CONTEXT
    assert answer.body["choices"][0]["finish_reason"] == "length"


def test_max_completion_tokens_is_max_tokens(server: Live) -> None:
    one = server.chat(seed=3, max_completion_tokens=9).texts
    assert one == server.chat(seed=3, max_tokens=9).texts
    assert one == server.chat(seed=3, max_completion_tokens=9, max_tokens=30).texts


def test_16_tokens_are_the_default_length_of_a_completion(server: Live) -> None:
    assert server.complete(seed=3, ignore_eos=True).body["usage"]["completion_tokens"] == 16


def test_null_is_the_default_of_every_field(server: Live) -> None:
    schema = server.get("/openapi.json").body["components"]["schemas"]["CompletionRequest"]
    names = [name for name in schema["properties"] if name not in ("prompt", "seed")]
    answer = server.complete(seed=3, **dict.fromkeys(names))
    assert answer.texts == server.complete(seed=3).texts


def test_prompts_come_as_texts_and_as_ids(server: Live) -> None:
    ids = server.post("/tokenize", prompt="the quick").body["tokens"]
    text = server.complete("the quick", seed=4).texts
    assert server.complete(ids, seed=4).texts == text
    assert server.complete(["the quick"], seed=4).texts == text
    assert server.complete([ids, ids], seed=4).texts == text * 2
    many = server.complete(["the quick", "lazy"], seed=4, n=2)
    assert [one["index"] for one in many.body["choices"]] == [0, 1, 2, 3]
    assert many.texts[0] == text[0]
    assert many.texts[2:] == server.complete("lazy", seed=4, n=2).texts


def test_echo_puts_the_prompt_before_the_text(server: Live) -> None:
    own = server.complete("the quick", seed=4).texts[0]
    assert server.complete("the quick", seed=4, echo=True).texts == ["the quick" + own]
    chunks = server.stream("/v1/completions", prompt="the quick", seed=4, echo=True)
    assert live.text_of(chunks) == "the quick" + own


def test_text_and_ids_are_one_another(server: Live) -> None:
    found = server.post("/tokenize", prompt="the quick brown", return_token_strs=True).body
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == live.CONTEXT
    assert server.post("/detokenize", tokens=found["tokens"]).body["prompt"] == "the quick brown"
    chat = [{"role": "user", "content": "fox"}]
    assert server.post("/tokenize", messages=chat).body["count"] > 1
