"""Speeds and speed-ups from the batches of two arms."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.batch import Batch
from draftsmith.bench.resample import bootstrap
from draftsmith.core.statistics import Interval

__all__ = ["Cost", "Scope", "Speedup", "cost_table", "speedup", "tokens_per_second"]

Scope: TypeAlias = Literal["decode", "request"]
"""Decoding, from the first round's tokens on; or whole requests, prompts included."""
Costs: TypeAlias = Mapping[tuple[int, int], "Cost"]
"""By (round, batch)."""


class Cost(NamedTuple):
    """What one batch took, and gave."""

    num_tokens: int
    seconds: float


class Speedup(NamedTuple):
    """How many times as fast as another arm."""

    median: float
    """Of the ratios of the rounds."""
    interval: Interval | None
    """Of the median, with batches of prompts drawn anew."""
    per_round: tuple[float, ...]


def cost_table(
    batches: Mapping[tuple[int, int], Batch], scope: Scope
) -> dict[tuple[int, int], Cost]:
    """What each batch took in a scope."""
    if scope == "decode":
        return {key: Cost(one.num_decode_tokens, one.decode_s) for key, one in batches.items()}
    return {key: Cost(one.num_tokens, one.wall_s) for key, one in batches.items()}


def tokens_per_second(costs: Costs) -> float | None:
    """All tokens over all seconds; None if there were no tokens."""
    num_tokens = sum(cost.num_tokens for cost in costs.values())
    seconds = sum(cost.seconds for cost in costs.values())
    return num_tokens / seconds if num_tokens and seconds > 0 else None


def speedup(ours: Costs, theirs: Costs) -> Speedup | None:
    """Compare two arms over the batches that both ran, round by round.

    Args:
        ours: The arm's.
        theirs: What it is compared with, such as plain decoding's in the same rounds.

    Returns:
        The median over rounds of (our tokens per second / theirs); None without a round in common.
    """
    shared = sorted(ours.keys() & theirs.keys())
    numbers = sorted({number for _, number in shared})
    # A round that was cut short compares what it has.
    rounds = sorted({round_ for round_, _ in shared})
    mine, other = (_grid(costs, rounds, numbers, shared) for costs in (ours, theirs))
    every = np.arange(len(numbers))[None, :]
    per_round = _ratios(mine, other, every)[:, 0] if rounds else np.empty(0)
    finite = per_round[np.isfinite(per_round)]
    if not len(finite):
        return None

    def medians(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return _medians(_ratios(mine, other, draws))

    interval = bootstrap(len(numbers), medians)
    return Speedup(float(np.median(finite)), interval, tuple(map(float, finite)))


def _grid(
    costs: Costs,
    rounds: Sequence[int],
    numbers: Sequence[int],
    shared: Sequence[tuple[int, int]],
) -> NDArray[np.float64]:
    """(tokens, seconds) `[2, rounds, batches]`, zero where one arm did not come to it."""
    grid = np.zeros((2, len(rounds), len(numbers)))
    for round_, number in shared:
        place = rounds.index(round_), numbers.index(number)
        grid[0][place], grid[1][place] = costs[round_, number]
    return grid


def _ratios(
    mine: NDArray[np.float64], other: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Ratios of speeds `[rounds, resamples]`."""
    (our_tokens, our_seconds), (tokens, seconds) = (
        grid[:, :, draws].sum(axis=-1) for grid in (mine, other)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (our_tokens / our_seconds) / (tokens / seconds)
    ratios[~np.isfinite(ratios)] = np.nan
    return ratios


def _medians(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over rounds, of what is finite; NaN where nothing is."""
    has_value = np.isfinite(ratios).any(axis=0)
    found = np.full(ratios.shape[1], np.nan)
    found[has_value] = np.nanmedian(ratios[:, has_value], axis=0)
    return found
