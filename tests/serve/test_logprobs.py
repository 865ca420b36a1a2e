"""Log-probabilities of drafted tokens are those of plain decoding, token by token."""

from typing import Any

import pytest

from draftsmith.core.params import SamplingParams
from tests.serve import live
from tests.serve.live import Live

_TURNS = [{"role": "user", "content": "the quick brown"}]
_BODY: dict[str, Any] = {"seed": 5, "max_tokens": 40}
_LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 3}


def test_they_are_the_engines_with_speculation_on_and_off(server: Live, plain: Live) -> None:
    params = SamplingParams(temperature=1.0, **_BODY, logprobs=3)
    [done] = live.engine(gamma=0).generate(_TURNS, params)[0].completions
    for one in (server, plain):
        content = one.chat(**_BODY, **_LOGPROBS).body["choices"][0]["logprobs"]["content"]
        shown = done.trace[: len(content)]
        assert len(done.trace) - len(content) == isinstance(done.stop_reason, int)
        for entry, trace in zip(content, shown, strict=True):
            assert entry["logprob"] == pytest.approx(trace.logprob, abs=1e-4)
            tops = [top["logprob"] for top in entry["top_logprobs"]]
            assert tops == pytest.approx([top.logprob for top in trace.top_logprobs], abs=1e-4)


def test_the_bytes_of_the_tokens_are_the_text(server: Live) -> None:
    choice = server.chat(**_BODY, **_LOGPROBS, temperature=0.3).body["choices"][0]
    content = choice["logprobs"]["content"]
    spelled = bytes(byte for entry in content for byte in entry["bytes"])
    assert spelled.decode("utf-8", "replace") == choice["message"]["content"]


def test_a_stream_tells_the_same(server: Live) -> None:
    whole = server.chat(**_BODY, **_LOGPROBS, n=2).body["choices"]
    chunks = server.stream("/v1/chat/completions", messages=_TURNS, n=2, **_BODY, **_LOGPROBS)
    for index, choice in enumerate(whole):
        told = [
            entry
            for chunk in chunks[:-1]
            for one in chunk["choices"]
            if one["index"] == index and one["logprobs"]
            for entry in one["logprobs"]["content"]
        ]
        assert told == choice["logprobs"]["content"]


def test_completions_have_them_in_parallel_lists(server: Live) -> None:
    body = {"prompt": "the quick", "seed": 5, "max_tokens": 20, "logprobs": 2}
    choice = server.post("/v1/completions", **body).body["choices"][0]
    logprobs = choice["logprobs"]
    assert {len(values) for values in logprobs.values()} == {len(logprobs["tokens"])}
    assert all(1 <= len(top) <= 2 for top in logprobs["top_logprobs"])
    offsets = logprobs["text_offset"]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    chunks = server.stream("/v1/completions", **body)
    parts = [
        one["logprobs"] for chunk in chunks[:-1] for one in chunk["choices"] if one["logprobs"]
    ]
    for name, values in logprobs.items():
        assert [value for part in parts for value in part[name]] == values


def test_no_alternatives_are_told_where_none_are_asked_for(server: Live) -> None:
    content = server.chat(**_BODY, logprobs=True).body["choices"][0]["logprobs"]["content"]
    assert all(entry["top_logprobs"] == [] for entry in content)
    assert server.chat(**_BODY).body["choices"][0]["logprobs"] is None
