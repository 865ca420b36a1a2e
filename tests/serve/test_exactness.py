"""The same seed gives the same text: speculation on or off, alone or beside others."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serve import live
from tests.serve.live import Live

_PROMPT = "the quick brown fox jumps over the lazy dog"
_BODY: dict[str, Any] = {"prompt": _PROMPT, "seed": 7, "max_tokens": 60, "ignore_eos": True}
_SPECULATION: list[dict[str, Any] | None] = [
    None,
    {"gamma": 0},
    {"gamma": 1},
    {"gamma": 9},
    {"draft": "none"},
    {"draft": "near-tiny", "gamma": 2},
    {"draft": "prompt-lookup"},
    {"draft": "prompt-lookup", "gamma": 7},
]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("speculation", _SPECULATION)
def test_speculation_changes_no_text(
    server: Live, plain: Live, speculation: dict[str, Any] | None, temperature: float
) -> None:
    expected = plain.post("/v1/completions", **_BODY, temperature=temperature).texts
    body = _BODY | {"temperature": temperature, "speculation": speculation}
    assert server.post("/v1/completions", **body).texts == expected


def test_a_text_is_the_same_alone_and_beside_eight_others(server: Live, plain: Live) -> None:
    bodies = [_BODY | {"seed": seed, "prompt": _PROMPT[: 9 + 3 * seed]} for seed in range(9)]
    bodies[1] |= {"speculation": {"gamma": 0}}
    bodies[2] |= {"speculation": {"draft": "prompt-lookup"}, "frequency_penalty": 0.5}
    bodies[3] |= {"temperature": 0, "repetition_penalty": 1.2}
    bodies[4] |= {"prediction": {"type": "content", "content": _PROMPT}}
    bodies[5] |= {"top_k": 5, "n": 2}
    alone = [plain.post("/v1/completions", **_without(body)).texts for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = [
            one.result()
            for one in [pool.submit(server.post, "/v1/completions", **body) for body in bodies]
        ]
    assert [answer.texts for answer in together] == alone


def _without(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("speculation",)}


@pytest.mark.parametrize("gamma", [0, 3, "auto"])
def test_every_gamma_of_the_server_gives_the_same_texts(plain: Live, gamma: Any) -> None:
    expected = [plain.post("/v1/completions", **(_BODY | {"seed": n})).texts for n in range(4)]
    draft = live.model_draft() if gamma else None
    with live.serving(live.engine(draft, gamma)) as other:
        with ThreadPoolExecutor(4) as pool:
            bodies = [_BODY | {"seed": seed} for seed in range(4)]
            held = [pool.submit(other.post, "/v1/completions", **body) for body in bodies]
            found = [one.result().texts for one in held]
        assert found == expected


def test_a_prediction_is_kept_where_it_is_right_and_changes_no_text(
    server: Live, plain: Live
) -> None:
    expected = plain.post("/v1/completions", **_BODY).texts[0]
    right = {"type": "content", "content": expected}
    wrong = {"type": "content", "content": "nothing of this will ever come"}
    for prediction, least in ((right, 8), (wrong, 0)):
        answer = server.post("/v1/completions", **_BODY, prediction=prediction)
        assert answer.texts == [expected]
        details = answer.body["usage"]["completion_tokens_details"]
        assert details["accepted_prediction_tokens"] >= least
        if prediction is wrong:
            assert details["rejected_prediction_tokens"] > 0
    usual = server.post("/v1/completions", **_BODY).body["usage"]["completion_tokens_details"]
    assert usual == {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}


def test_statistics_tell_of_speculation_when_asked(server: Live) -> None:
    asked = {"statistics": True}
    usage = server.post("/v1/completions", **_BODY, speculation=asked).body["usage"]
    counts = usage["speculation"]
    assert counts["num_committed"] == 60
    assert 0 < counts["num_accepted"] <= counts["num_drafted"]
    asked |= {"gamma": 0}
    usage = server.post("/v1/completions", **_BODY, speculation=asked).body["usage"]
    assert usage["speculation"]["num_drafted"] == 0
    assert "speculation" not in server.post("/v1/completions", **_BODY).body["usage"]


def test_origins_tell_where_each_token_came_from(server: Live) -> None:
    asked = {"origins": True}
    whole = server.post("/v1/completions", **_BODY, speculation=asked).body["choices"][0]
    origins = [token["origin"] for token in whole["speculation"]]
    assert len(origins) == 60
    assert set(origins) <= {"kept", "bonus", "residual"}
    assert "kept" in origins
    chunks = server.stream("/v1/completions", **_BODY, speculation=asked)
    told = [one for chunk in chunks[:-1] for one in chunk["choices"][0].get("speculation", [])]
    assert told == whole["speculation"]
    texts = server.post("/detokenize", tokens=[token["id"] for token in told]).body["prompt"]
    assert texts.strip() == whole["text"].strip()
