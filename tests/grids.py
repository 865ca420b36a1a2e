"""Grids of which a part is run every day, and all of it with the tests that are marked `long`."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def beginning(cases: Iterable[object], num: int) -> list[Any]:
    """Cases of which the first so many are run every day."""
    return [
        pytest.param(case, marks=[pytest.mark.long] if place >= num else [])
        for place, case in enumerate(cases)
    ]


def thinned(*axes: Iterable[object], every: int) -> list[Any]:
    """All cases of some axes, of which one in `every` is run every day, a diagonal.

    So each value of an axis is, wherever another axis has at least as many values.
    """
    cases = product(*(enumerate(axis) for axis in axes))
    return [
        pytest.param(
            *(value for _, value in case),
            marks=[pytest.mark.long] if sum(place for place, _ in case) % every else [],
        )
        for case in cases
    ]
