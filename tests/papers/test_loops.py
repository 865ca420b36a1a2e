"""Figure 1 measured: what is timed, how texts are summed up, and what an interruption leaves."""

import itertools
import math
from functools import cache
from typing import Any

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.papers.loops import TextTiming, measured, panels, time_texts
from tests.engine.kit import PROMPTS, target, twin

PARAMS = SamplingParams(temperature=0.8, seed=3, verifier="rejection")


class Ticks:
    """A clock that moves by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = itertools.count()

    def __call__(self) -> float:
        return next(self.now) / 1000


@cache
def timings(num_tokens: int = 20) -> list[TextTiming]:
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")))
    options: dict[str, Any] = {"num_tokens": num_tokens, "clock": Ticks()}
    return list(time_texts(engine, PROMPTS[:2], (0, 1, 3), PARAMS, **options))


def test_every_prompt_meets_every_gamma_in_turn() -> None:
    order = [(one.prompt, one.gamma) for one in timings()]
    assert order == [(0, 0), (0, 1), (0, 3), (1, 1), (1, 3), (1, 0)]


def test_tokens_loops_and_time_are_those_after_the_first_loop() -> None:
    for one in timings():
        # One reading as the first loop ends, then one a loop.
        assert one.ms == pytest.approx(one.num_loops)
        assert 20 <= one.num_tokens <= 20 + one.gamma
        assert one.num_tokens <= (one.gamma + 1) * one.num_loops
        if one.gamma == 0:
            assert one.num_loops == one.num_tokens == 20
        else:
            assert one.num_loops < 20, "this draft is right often"


def test_a_prompt_without_room_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="prompt 0: max_tokens must be at most 123"):
        timings(num_tokens=128)


def test_a_draft_is_needed() -> None:
    with pytest.raises(InvalidRequestError, match="needs a draft"):
        list(time_texts(Engine(target("llama")), PROMPTS, (0, 1), PARAMS))


TIMED = [
    TextTiming(prompt=0, gamma=0, num_tokens=128, num_loops=128, ms=1280.0),
    TextTiming(prompt=0, gamma=1, num_tokens=128, num_loops=80, ms=960.0),
    TextTiming(prompt=1, gamma=0, num_tokens=64, num_loops=64, ms=640.0),
    TextTiming(prompt=1, gamma=1, num_tokens=128, num_loops=64, ms=640.0),
]


def test_texts_are_summed_up_by_gamma() -> None:
    plain, one = panels(TIMED)
    assert (plain.gamma, plain.num_texts, plain.speedup, plain.efficiency) == (0, 2, 1.0, 1.0)
    assert plain.text_ms == (1280.0, 0.0)
    assert plain.loop_ms == (10.0, 0.0)
    assert one.text_ms.mean == pytest.approx(800.0)
    assert one.text_ms.std == pytest.approx(160 * math.sqrt(2))
    assert one.loop_ms.mean == pytest.approx(11.0)
    assert one.efficiency == pytest.approx(256 / 144 / 2)
    assert one.speedup == pytest.approx(1.6)
    assert one.to_dict()["text_ms"]["mean"] == one.text_ms.mean


def test_an_interrupted_prompt_is_left_out() -> None:
    assert panels(TIMED[:3]) == panels(TIMED[:2])
    with pytest.raises(InvalidRequestError, match="let one finish"):
        panels([])
    with pytest.raises(InvalidRequestError, match="let one finish"):
        panels(TIMED[1:2])


def test_the_item_says_what_was_fastest() -> None:
    item = measured(panels(TIMED), "these models")
    assert item.remarks[0].startswith("these models; 2 texts a point")
    assert "Fastest is K = 1" in item.remarks[0]
    assert len(item.figures) == 3
    assert item.tables[0].rows[1][:3] == ["1", "800 ± 226", "1.60x"]
