"""Medians and spreads, by one rule for every benchmark."""

import statistics
import time
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median, minimum, 10th and 90th percentile, count, and the values themselves."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": round(statistics.median(ordered), digits),
        "min": round(ordered[0], digits),
        "p10": round(ordered[round(0.1 * last)], digits),
        "p90": round(ordered[round(0.9 * last)], digits),
        "n": len(ordered),
        "values": [round(value, digits) for value in values],
    }


def settle() -> None:
    """Wait until the threads of whoever ran last have stopped spinning.

    OpenMP's threads (of torch and of llama.cpp) look for work for up to 200 ms, on the cores
    that the next system is measured on.
    """
    time.sleep(0.3)
