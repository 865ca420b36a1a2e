"""From what drafts would have done and what rounds cost, to the speed of speculation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.resample import bootstrap
from draftsmith.core.statistics import Interval, RoundRecord, SpeculationStatistics

__all__ = ["DraftTime", "Prediction", "batch_limit", "predict"]

DraftTime = Callable[[int], float]
"""Seconds of drafting so many tokens."""
CheckTime = Callable[[int], float]
"""Seconds of a round without its drafting, by checked rows."""
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_WORTH_IT = 1.02


@dataclass(frozen=True)
class Prediction:
    """What one draft length should bring."""

    gamma: int
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

    @property
    def acceptance_per_position(self) -> tuple[float | None, ...]:
        """Chance of each position, if those before it were kept."""
        return self.statistics.acceptance_per_position


def predict(
    texts: Sequence[Sequence[RoundRecord]],
    gamma: int,
    draft_s: DraftTime,
    check_s: CheckTime,
) -> Prediction:
    """Add up what the rounds of some texts take, beside plain decoding of the same texts.

    Args:
        texts: The rounds of each text.
        gamma: The draft length that led to them.
        draft_s: Seconds of drafting so many tokens.
        check_s: Seconds of the rest of a round, by checked rows.
    """
    rows: list[tuple[float, float, float]] = []
    for records in texts:
        # The first round comes with the prompt, in plain decoding as well.
        later = records[1:]
        drafting = sum(draft_s(one.num_drafted) for one in later)
        checking = sum(check_s(1 + one.num_drafted) for one in later)
        rows.append((sum(one.num_committed for one in later), drafting, checking))
    table = np.array(rows)
    everything = [record for records in texts for record in records]
    statistics = SpeculationStatistics.from_rounds(everything)
    num_later = max(1, sum(len(records) - 1 for records in texts))
    plain_s = check_s(1)

    def speedups(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        tokens, drafting, checking = np.moveaxis(table[draws].sum(axis=1), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return tokens * plain_s / (drafting + checking)

    tokens, drafting, checking = table.sum(axis=0)
    seconds = drafting + checking
    return Prediction(
        gamma=gamma,
        tokens_per_pass=statistics.tokens_per_pass or 1.0,
        speedup=float(tokens * plain_s / seconds) if seconds > 0 else 1.0,
        interval=bootstrap(len(texts), speedups),
        draft_s=float(drafting / num_later),
        check_s=float(checking / num_later),
        statistics=statistics,
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
