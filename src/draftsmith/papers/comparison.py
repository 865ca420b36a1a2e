"""Ours beside theirs: a printed number, the number computed, and whether they agree."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from draftsmith.report.figure import Figure
from draftsmith.report.page import Table

__all__ = ["Cell", "Claim", "Item", "Mark", "last_digit", "number"]

_NUMBER = re.compile(r"\d+(?:\.(\d+))?")


class Mark(StrEnum):
    """What a comparison came to."""

    SAME = "same"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Cell:
    """One printed number and ours.

    Example:
        >>> Cell("speed", "1.96X", 1.9612).ours, Cell("speed", "2.4", 2.347).mark.value
        ('1.96X', 'differs')
    """

    label: str
    printed: str
    """As the paper has it, unit included."""
    value: int | float
    """What we compute, unrounded."""
    note: str = ""
    """Whose slip a difference is, and why."""
    tolerance: float | None = None
    """A share of the printed number, for one that was read off a plot; None asks for all digits."""

    @property
    def rule(self) -> str:
        """When the two are called the same.

        Example:
            >>> Cell("speed", "1.96X", 1.96).rule
            'every digit that the paper prints, after rounding'
            >>> Cell("time", "690", 694.0, tolerance=0.05).rule
            'within 5 % of the number, which was read off a plot'
        """
        if self.tolerance is None:
            return "every digit that the paper prints, after rounding"
        share = f"{100 * self.tolerance:g} %"
        return f"within {share} of the number, which was read off a plot"

    @property
    def ours(self) -> str:
        """Our number as the paper would print it."""
        match = _NUMBER.search(self.printed)
        assert match is not None
        decimals = len(match[1] or "")
        return f"{self.value:.{decimals}f}{self.printed[match.end() :]}"

    @property
    def mark(self) -> Mark:
        """Whether the two agree: to the printed digit, or within the tolerance of a read-off."""
        if self.tolerance is None:
            return Mark.SAME if self.ours == self.printed else Mark.DIFFERS
        printed = number(self.printed)
        is_near = abs(self.value - printed) <= self.tolerance * printed
        return Mark.SAME if is_near else Mark.DIFFERS

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "label": self.label,
            "printed": self.printed,
            "ours": self.ours,
            "value": self.value,
            "tolerance": self.tolerance,
            "same_means": self.rule,
            "mark": self.mark.value,
            "note": self.note,
        }


@dataclass(frozen=True)
class Claim:
    """A statement without a number, tried at many points."""

    text: str
    num_points: int
    num_held: int

    @property
    def mark(self) -> Mark:
        """Whether it held everywhere, and was tried anywhere."""
        return Mark.SAME if self.num_held == self.num_points > 0 else Mark.DIFFERS

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"text": self.text, "num_points": self.num_points, "num_held": self.num_held}


@dataclass(frozen=True)
class Item:
    """One table, figure or statement of a paper."""

    place: str
    """Where it stands, as `Table 1`."""
    title: str
    cells: Sequence[Cell] = ()
    claims: Sequence[Claim] = ()
    remarks: Sequence[str] = ()
    """Whole sentences: how it was computed, and what it shows."""
    tables: Sequence[Table] = ()
    """Numbers of ours that the paper draws but does not print."""
    figures: Sequence[Figure] = ()

    @property
    def rule(self) -> str:
        """What `same` means here, a sentence; empty where no number is compared."""
        rules = dict.fromkeys(cell.rule for cell in self.cells)
        return f"Same means: {'; or '.join(rules)}." if rules else ""

    def count(self, mark: Mark) -> int:
        """Cells and claims with this mark."""
        return sum(one.mark is mark for one in (*self.cells, *self.claims))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; curves included."""
        return {
            "place": self.place,
            "title": self.title,
            "num_same": self.count(Mark.SAME),
            "num_differs": self.count(Mark.DIFFERS),
            "remarks": list(self.remarks),
            "same_means": self.rule,
            "cells": [cell.to_dict() for cell in self.cells],
            "claims": [claim.to_dict() for claim in self.claims],
            "tables": [
                {"caption": table.caption, "columns": list(table.columns), "rows": table.rows}
                for table in self.tables
            ],
            "curves": [
                {"figure": figure.title, "label": one.label, "x": list(one.x), "y": list(one.y)}
                for figure in self.figures
                for one in figure.series
            ],
        }


def number(printed: str) -> float:
    """The number in a printed text.

    Example:
        >>> number("1.96X"), number("~60%")
        (1.96, 60.0)
    """
    match = _NUMBER.search(printed)
    assert match is not None
    return float(match[0])


def last_digit(printed: str) -> float:
    """Half a unit of the last digit of a printed number: how far its rounding may have moved it.

    Example:
        >>> last_digit("0.75"), last_digit("5X")
        (0.005, 0.5)
    """
    match = _NUMBER.search(printed)
    assert match is not None
    return 0.5 * 10 ** -len(match[1] or "")
