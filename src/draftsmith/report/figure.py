"""A figure as plain data; `draftsmith.report.plots` draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from draftsmith.errors import InvalidRequestError

__all__ = ["Figure", "Numbers", "Series", "Style"]

Numbers: TypeAlias = Sequence[int | float]
Style: TypeAlias = Literal["line", "points", "bars", "dashed", "stacked"]


@dataclass(frozen=True)
class Series:
    """One curve, cloud or row of bars.

    Raises:
        InvalidRequestError: If the sequences are not equally long, or one bound is given alone.

    Example:
        >>> Series("plain", x=[1, 2], y=[1.0, 1.9], low=[0.9, 1.7], high=[1.1, 2.2]).style
        'line'
    """

    label: str
    """Names it in the legend; empty leaves it out."""
    x: Numbers
    """Where; with `Figure.x_ticks`, an index into them."""
    y: Numbers
    """How much; NaN leaves a gap."""
    low: Numbers | None = None
    """The lower end of an interval around each y."""
    high: Numbers | None = None
    """The upper end; a line gets a band, everything else error bars."""
    style: Style = "line"
    """Bars of several series stand side by side, stacked ones on top of each other."""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise InvalidRequestError(f"series {self.label!r} needs low and high, or neither")
        lengths = {len(self.x), len(self.y)}
        lengths |= {len(bound) for bound in (self.low, self.high) if bound is not None}
        if len(lengths) > 1:
            raise InvalidRequestError(
                f"series {self.label!r} needs equally many x, y, low and high, got {lengths}"
            )


@dataclass(frozen=True)
class Figure:
    """One pair of axes with its series.

    Raises:
        InvalidRequestError: If a series stands at an index that `x_ticks` has no name for.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    caption: str = ""
    """What the reader should see, and how it was measured; stands beside the plot."""
    x_ticks: Sequence[str] | None = None
    """Names of the categories 0, 1, 2 … on the x axis."""
    y_from_zero: bool = True
    """Whether the y axis begins at 0, so that lengths can be compared."""
    reference: int | float | None = None
    """A thin horizontal line, such as speed-up 1."""

    def __post_init__(self) -> None:
        if self.x_ticks is None:
            return
        last = max((max(one.x) for one in self.series if len(one.x)), default=-1)
        # Series may stand a little beside their category, each in its own place.
        if last >= len(self.x_ticks) - 0.5:
            raise InvalidRequestError(
                f"figure {self.title!r} has {len(self.x_ticks)} x_ticks, but a series at x = {last}"
            )
