"""From what drafts would have done and what rounds cost, to the speed of speculation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.resample import bootstrap
from draftsmith.core.statistics import Interval, SpeculationStatistics
from draftsmith.engine.replay import Replayed

__all__ = [
    "DraftTime",
    "FoundAt",
    "Prediction",
    "batch_limit",
    "expected_tokens",
    "found_at",
    "predict",
]

DraftTime = Callable[[int], float]
"""Seconds of drafting so many tokens."""
FoundAt = tuple[tuple[float, ...], ...]
"""By place in a draft and number of the guess for it: of the rounds that came to that place, the
share in which the target's token was that guess."""
CheckTime = Callable[[int], float]
"""Seconds of a round without its drafting, by checked rows."""
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_WORTH_IT = 1.02


@dataclass(frozen=True)
class Prediction:
    """What one draft length should bring."""

    gamma: int
    branches: int
    tokens_per_pass: float
    speedup: float
    """Decoding speed over plain decoding's, prompts and first rounds left out as `bench` does."""
    interval: Interval | None
    """Of the speed-up, with prompts drawn anew; the costs are taken as measured."""
    draft_s: float
    """Of a round, on average: drafting."""
    check_s: float
    """Of a round, on average: everything else."""
    statistics: SpeculationStatistics
    found_at: FoundAt
    """Which guess for its place the target's token was."""

    @property
    def acceptance_per_position(self) -> tuple[float | None, ...]:
        """Chance of each position, if those before it were kept."""
        return self.statistics.acceptance_per_position


def found_at(rounds: Sequence[Replayed]) -> FoundAt:
    """Where the target's tokens were found.

    Example:
        >>> from draftsmith.core.statistics import RoundRecord
        >>> from draftsmith.engine.replay import Replayed
        >>> kept, wrong = RoundRecord(3, 2, 1, 2), RoundRecord(3, 1, 0, 1)
        >>> found_at([Replayed(kept, (1,)), Replayed(wrong, ())])
        ((0.0, 0.5),)
    """
    longest = max((len(one.children) for one in rounds), default=0)
    found: list[tuple[float, ...]] = []
    for place in range(longest):
        come = [one.children for one in rounds if len(one.children) >= place]
        numbers = [children[place] for children in come if len(children) > place]
        widest = max(numbers) + 1
        found.append(tuple(numbers.count(number) / len(come) for number in range(widest)))
    return tuple(found)


def expected_tokens(found: FoundAt) -> float:
    """Tokens a pass where no text ends: 1 + sum over places of the chance to come behind it.

    1 + sum_i prod_{j<=i} sum_k found[j][k]; of a chain with one rate alpha at every place,
    (1 - alpha^(gamma+1)) / (1 - alpha) (Leviathan et al., equation 1).

    Example:
        >>> expected_tokens(((0.5, 0.25), (0.5,)))
        2.125
    """
    total, chance = 1.0, 1.0
    for shares in found:
        chance *= sum(shares)
        total += chance
    return total


def predict(
    texts: Sequence[Sequence[Replayed]],
    gamma: int,
    draft_s: DraftTime,
    check_s: CheckTime,
    branches: int = 1,
) -> Prediction:
    """Add up what the rounds of some texts take, beside plain decoding of the same texts.

    Args:
        texts: The rounds of each text.
        gamma: The draft length that led to them.
        branches: And the number of guesses for a place.
        draft_s: Seconds of drafting so many tokens.
        check_s: Seconds of the rest of a round, by checked rows.
    """
    rows: list[tuple[float, float, float]] = []
    for rounds in texts:
        records = [one.record for one in rounds]
        # The first round comes with the prompt, in plain decoding as well.
        later = records[1:]
        drafting = sum(draft_s(one.num_drafted) for one in later)
        checking = sum(check_s(1 + one.num_drafted) for one in later)
        rows.append((sum(one.num_committed for one in later), drafting, checking))
    table = np.array(rows)
    everything = [one for rounds in texts for one in rounds]
    statistics = SpeculationStatistics.from_rounds(one.record for one in everything)
    num_later = max(1, sum(len(rounds) - 1 for rounds in texts))
    plain_s = check_s(1)

    def speedups(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        tokens, drafting, checking = np.moveaxis(table[draws].sum(axis=1), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return tokens * plain_s / (drafting + checking)

    tokens, drafting, checking = table.sum(axis=0)
    seconds = drafting + checking
    return Prediction(
        gamma=gamma,
        branches=branches,
        tokens_per_pass=statistics.tokens_per_pass or 1.0,
        speedup=float(tokens * plain_s / seconds) if seconds > 0 else 1.0,
        interval=bootstrap(len(texts), speedups),
        draft_s=float(drafting / num_later),
        check_s=float(checking / num_later),
        statistics=statistics,
        found_at=found_at(everything),
    )


def batch_limit(
    predictions: Sequence[Prediction],
    draft_s: Callable[[int, int], float],
    check_s: CheckTime,
) -> int | None:
    """The smallest batch at which no draft length pays any more; None if there is none to 64.

    Sequences are taken to be alike, and a pass over the rows of many to cost what a pass over as
    many rows of one costs; each sequence's own attention is not in it.

    Args:
        predictions: For one sequence.
        draft_s: Seconds of drafting, by (tokens, sequences).
        check_s: Seconds of the rest of a round, by checked rows of all sequences.
    """
    for size in _BATCHES:
        plain = check_s(size)
        best = max(
            one.tokens_per_pass
            * plain
            / (draft_s(one.gamma, size) + check_s(size + round(size * _mean_drafted(one))))
            for one in predictions
        )
        if best < _WORTH_IT:
            return size
    return None


def _mean_drafted(prediction: Prediction) -> float:
    counts = prediction.statistics
    return counts.num_drafted / max(1, counts.num_rounds)
