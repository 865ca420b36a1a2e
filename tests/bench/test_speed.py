"""Ratios of speeds from costs that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.bench.resample import bootstrap
from draftsmith.bench.speed import Cost, speedup, tokens_per_second


def _costs(table: list[list[float]], num_tokens: int = 10) -> dict[tuple[int, int], Cost]:
    """Seconds by round and batch."""
    return {
        (round_, number): Cost(num_tokens, seconds)
        for round_, row in enumerate(table)
        for number, seconds in enumerate(row)
    }


def test_the_speedup_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine is three times as slow in the last round: for both.
    plain = _costs([[2.0, 2.0], [2.0, 2.0], [6.0, 6.0]])
    fast = _costs([[1.0, 1.0], [1.0, 1.5], [3.0, 3.0]])
    found = speedup(fast, plain)
    assert found is not None
    assert found.per_round == (2.0, 1.6, 2.0)
    assert found.median == 2.0
    assert found.interval is not None
    assert found.interval.low <= 2.0 <= found.interval.high


def test_more_tokens_in_the_same_time_are_faster() -> None:
    found = speedup(_costs([[1.0]], num_tokens=30), _costs([[1.0]], num_tokens=10))
    assert found is not None
    assert found.median == pytest.approx(3.0)
    # Of one batch no interval over prompts can be told.
    assert found.interval is None


def test_only_what_both_ran_is_compared() -> None:
    plain = _costs([[1.0, 1.0], [1.0, 1.0]])
    fast = {(0, 0): Cost(10, 0.5), (0, 1): Cost(10, 0.5), (1, 0): Cost(10, 0.25)}
    found = speedup(fast, plain)
    assert found is not None
    assert found.per_round == (2.0, 4.0)
    assert speedup({}, plain) is None
    assert speedup({(7, 7): Cost(1, 1.0)}, plain) is None


def test_batches_without_decoding_give_no_ratio_and_no_warning() -> None:
    nothing = {(0, 0): Cost(0, 0.0), (0, 1): Cost(0, 0.0)}
    assert speedup(nothing, nothing) is None
    half = {(0, 0): Cost(0, 0.0), (0, 1): Cost(10, 1.0)}
    found = speedup(half, half)
    assert found is not None
    assert found.per_round == (1.0,)
    assert tokens_per_second(nothing) is None
    assert tokens_per_second(half) == 10.0


_SECONDS = st.floats(0.1, 10)


@given(st.lists(_SECONDS, min_size=2, max_size=6), st.floats(0.5, 4))
def test_a_constant_factor_is_found_exactly_whatever_the_prompts(
    seconds: list[float], factor: float
) -> None:
    plain = _costs([seconds, seconds])
    fast = _costs([[one / factor for one in seconds]] * 2)
    found = speedup(fast, plain)
    assert found is not None
    assert found.interval is not None
    for value in (found.median, *found.interval):
        assert value == pytest.approx(factor)


def test_the_bootstrap_covers_a_mean_as_often_as_it_says() -> None:
    # 200 experiments of 40 draws; coverage of a 95 % interval is a little below 95 %.
    # False-fail rate: fewer than 80 % of 200 at a true rate of 93 % is beyond 6 deviations.
    numbers = np.random.default_rng(0).normal(5.0, 1.0, size=(200, 40))
    hits = 0
    for row in numbers:
        found = bootstrap(40, lambda draws, row=row: row[draws].mean(axis=1))
        assert found is not None
        hits += found.low <= 5.0 <= found.high
    assert 160 <= hits < 200


def test_without_units_or_values_there_is_no_interval() -> None:
    assert bootstrap(1, lambda draws: draws.mean(axis=1)) is None
    assert bootstrap(5, lambda draws: np.full(len(draws), np.nan)) is None
