"""Medians and spreads, by one rule for every benchmark."""

import statistics
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
