"""The schedule against every other schedule, on random worlds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core.scheduling import Candidate, best_cut, best_schedule, least_seconds


def _candidate(rng: np.random.Generator, depth: int, availability: float) -> Candidate:
    return Candidate(np.cumprod(rng.uniform(0.2, 1.0, depth), dtype=np.float64), availability)


def _rate(
    candidates: list[Candidate], gammas: tuple[int, ...], check: np.ndarray, draft: np.ndarray
) -> float:
    tokens = len(candidates) + sum(
        one.availability * one.chances[:gamma].sum()
        for one, gamma in zip(candidates, gammas, strict=True)
    )
    rows = sum(gammas)
    share = candidates[0].availability
    seconds = check[0] + share * (check[rows] - check[0]) + draft[max(gammas)]
    return float(tokens / seconds)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_no_schedule_is_better(seed: int, num_sequences: int, is_sure: bool) -> None:
    rng = np.random.default_rng(seed)
    availability = 1.0 if is_sure else float(rng.uniform(0.1, 1))
    candidates = [
        _candidate(rng, int(rng.integers(0, 4)), availability) for _ in range(num_sequences)
    ]
    check = np.cumsum(rng.uniform(0, 0.3, 3 * num_sequences + 1), dtype=np.float64) + 1
    draft = np.cumsum(np.concatenate([[0.0], rng.uniform(0, 0.3, 3)]), dtype=np.float64)
    found = best_schedule(candidates, check, draft)
    ranges = [range(len(one.chances) + 1) for one in candidates]
    best = max(_rate(candidates, gammas, check, draft) for gammas in itertools.product(*ranges))
    assert _rate(candidates, found.gammas, check, draft) == pytest.approx(best)
    assert found.rate == pytest.approx(best)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1]))
def test_a_draft_that_is_there_is_cut_as_a_schedule_says(seed: int, min_depth: int) -> None:
    rng = np.random.default_rng(seed)
    candidate = _candidate(rng, int(rng.integers(1, 9)), 1.0)
    check = np.cumsum(rng.uniform(0, 0.3, 9), dtype=np.float64) + 1
    found = best_schedule([candidate], check, np.zeros(9), min_depth=min_depth)
    assert best_cut(candidate.chances.tolist(), check, min_depth=min_depth) == found.gammas[0]


def test_a_draft_that_never_pays_is_not_drafted() -> None:
    candidate = Candidate(np.array([0.1, 0.01]))
    check, draft = np.array([1.0, 1.5, 2.0]), np.array([0.0, 0.2, 0.4])
    assert best_schedule([candidate], check, draft).gammas == (0,)
    assert best_schedule([candidate], check, draft, min_depth=1).gammas == (1,)
    assert best_schedule([candidate] * 2, np.arange(1, 6) / 1, draft).gammas == (0, 0)


def test_the_better_sequence_gets_the_longer_draft() -> None:
    good, bad = Candidate(np.full(4, 0.9)), Candidate(np.array([0.3, 0.1, 0.03, 0.01]))
    check = 1 + np.linspace(0.0, 1.2, 9)
    gammas = best_schedule([bad, good], check, np.zeros(5)).gammas
    assert gammas[1] == 4 > gammas[0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_no_draft_takes_less_than_the_least(seed: int, num_sequences: int) -> None:
    """And one token of a lone sequence, on which nothing is gained, takes exactly that."""
    rng = np.random.default_rng(seed)
    candidates = [
        _candidate(rng, int(rng.integers(1, 4)), float(rng.uniform(0.1, 1)))
        for _ in range(num_sequences)
    ]
    check = np.cumsum(rng.uniform(0, 0.3, 3 * num_sequences + 1), dtype=np.float64) + 1
    draft = np.cumsum(np.concatenate([[0.0], rng.uniform(0, 0.3, 3)]), dtype=np.float64)
    least = least_seconds((one.availability for one in candidates), check, draft)
    found = best_schedule(candidates, check, draft, min_depth=1)
    assert found.seconds >= least - 1e-12
    lone = [Candidate(np.array([0.5]), candidates[0].availability)]
    alone = best_schedule(lone, check, draft, min_depth=1)
    assert alone.seconds == pytest.approx(least_seconds([candidates[0].availability], check, draft))
