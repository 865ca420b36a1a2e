"""Bootstrap intervals over prompts (Efron 1979): texts differ more than repeats of one text."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from draftsmith.core.statistics import Interval

__all__ = ["CONFIDENCE", "bootstrap"]

CONFIDENCE = 0.95
_NUM_RESAMPLES = 2000
_SEED = 0
"""The same numbers give the same interval."""


def bootstrap(
    num_units: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]]
) -> Interval | None:
    """The percentile interval of a statistic, with units drawn anew.

    Args:
        num_units: Prompts, or batches of prompts.
        statistic: From drawn units `[resamples, num_units]` to its values `[resamples]`; NaN
            where it has none.

    Returns:
        The 2.5th and the 97.5th percentile; None with fewer than two units, or without values.
    """
    if num_units < 2:
        return None
    draws = np.random.default_rng(_SEED).integers(num_units, size=(_NUM_RESAMPLES, num_units))
    values = statistic(draws)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
