"""Draws figures with matplotlib: the same figure gives the same bytes."""

import io
import textwrap
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from draftsmith.errors import InvalidRequestError
from draftsmith.report.figure import Figure, Numbers, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Theme", "save", "svg"]

Theme: TypeAlias = Literal["light", "dark"]

_WIDTH_INCHES = 4.0
"""Narrow, so that the text is still read when a phone shows it at 330 pixels."""
_AXES_INCHES = 2.5
_LINE_INCHES = 0.165
"""Height of a line of text, which the axes do not pay for."""
_CHARACTER_INCHES = 0.075
"""Of a name that is turned upright."""
_BAR_INCHES = 0.19
"""Height of a lying bar and its share of the gap."""
_TITLE_CHARACTERS = 46
_LEGEND_CHARACTERS = 58
_TICK_CHARACTERS = 44
"""Together, of all categories; with more, bars lie down and other names are turned."""
_NAME_CHARACTERS = 26
"""Of a line of a category's name beside lying bars."""
_PNG_DPI = 200


class _Palette(NamedTuple):
    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


# Okabe and Ito's colours, told apart by every kind of sight; lighter on dark paper.
_PALETTES: dict[Theme, _Palette] = {
    "light": _Palette(
        "#ffffff",
        "#1c1c1c",
        "#5c5c5c",
        "#e4e4e4",
        ("#0072b2", "#d55e00", "#007a58", "#b0508f", "#8a6d00", "#3a3a3a", "#2f93cc"),
    ),
    "dark": _Palette(
        "#16181a",
        "#e8e8e8",
        "#a4a4a4",
        "#33373a",
        ("#56b4e9", "#ff9248", "#2fc79b", "#e39ac6", "#f0d040", "#c8c8c8", "#9fd3f5"),
    ),
}
_BARS = ("bars", "stacked")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""With the markers they tell curves apart without colour; a second round meets another marker."""
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")


def svg(figure: Figure, theme: Theme = "light") -> str:
    """Draw a figure as an `<svg>` element: text as outlines, so that it looks alike everywhere.

    Args:
        figure: What to draw.
        theme: Its paper and ink.

    Returns:
        The element, without the XML declaration; equal for equal arguments.
    """
    with _settings(theme):
        text = io.StringIO()
        _draw(figure, _PALETTES[theme]).savefig(text, format="svg", metadata=_no_metadata())
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write a figure on light paper to a file.

    Args:
        figure: What to draw.
        path: Ends in .svg or .png; a file that is there is replaced.

    Raises:
        InvalidRequestError: If the suffix is another, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png"):
        raise InvalidRequestError(f"plot {path} must end in .svg or .png")
    try:
        if suffix == ".svg":
            path.write_text(svg(figure) + "\n", encoding="utf-8")
            return
        with _settings("light"):
            canvas = _draw(figure, _PALETTES["light"])
            canvas.savefig(path, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    except OSError as error:
        raise InvalidRequestError(f"plot {path} cannot be written: {error.strerror}") from error


def _no_metadata() -> dict[str, None]:
    return dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextmanager
def _settings(theme: Theme) -> Generator[None]:
    # Here, because the import takes half a second and most commands draw nothing.
    import matplotlib

    palette = _PALETTES[theme]
    settings: dict[Any, Any] = {
        "svg.hashsalt": "draftsmith",
        "svg.fonttype": "path",
        "text.parse_math": False,  # a $ in a name is a dollar
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "figure.titlesize": 9,
        "figure.titleweight": "bold",
        "legend.fontsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": palette.grid,
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "hatch.linewidth": 0.7,
        "legend.handlelength": 2.8,
        "legend.frameon": False,
        "figure.facecolor": palette.paper,
        "savefig.facecolor": palette.paper,
        "axes.facecolor": palette.paper,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.muted,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
    }
    # A user's own matplotlibrc must not change what a report looks like.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def _draw(figure: Figure, palette: _Palette) -> "Canvas":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    title = textwrap.fill(figure.title, _TITLE_CHARACTERS)
    labels = [one.label for one in figure.series if one.label]
    columns = _columns(labels)
    num_legend_lines = -(-len(labels) // columns) if _needs_legend(figure) else 0
    num_lines = title.count("\n") + 1 + num_legend_lines
    is_lying = _is_lying(figure)
    height = _lying_inches(figure) if is_lying else _standing_inches(figure)
    canvas = Canvas(figsize=(_WIDTH_INCHES, height + _LINE_INCHES * num_lines))
    canvas.set_layout_engine("constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(title, x=0.01, horizontalalignment="left")
    axes = canvas.subplots()
    _draw_series(axes, figure.series, palette, is_lying=is_lying)
    if is_lying:
        _name_lying(axes, figure)
    else:
        _name_standing(axes, figure)
    if figure.reference is not None:
        draw_line = axes.axvline if is_lying else axes.axhline
        draw_line(figure.reference, color=palette.muted, linewidth=0.9, zorder=1.5)
    if num_legend_lines:
        canvas.legend(loc="outside lower left", ncols=columns)
    return canvas


def _needs_legend(figure: Figure) -> bool:
    """Whoever gives a series a name wants it read, also where it is the only one."""
    return any(one.label for one in figure.series)


def _columns(labels: Sequence[str]) -> int:
    """As many as fit beside each other, each as wide as the longest label."""
    widest = max(map(len, labels), default=1) + 9
    return max(1, min(len(labels), _LEGEND_CHARACTERS // widest))


def _is_lying(figure: Figure) -> bool:
    """Whether the bars lie, so that long names of categories stand beside them."""
    return _has_long_ticks(figure) and all(one.style in _BARS for one in figure.series)


def _has_long_ticks(figure: Figure) -> bool:
    return sum(len(tick) + 2 for tick in figure.x_ticks or ()) > _TICK_CHARACTERS


def _lying_inches(figure: Figure) -> float:
    num_side_by_side = max(1, sum(one.style == "bars" for one in figure.series))
    rows = sum(
        max(num_side_by_side, 0.9 * _name(tick).count("\n") + 1) for tick in figure.x_ticks or ()
    )
    return 0.75 + _BAR_INCHES * rows


def _standing_inches(figure: Figure) -> float:
    if not _has_long_ticks(figure):
        return _AXES_INCHES
    return _AXES_INCHES + _CHARACTER_INCHES * max(map(len, figure.x_ticks or ()))


def _name(tick: str) -> str:
    return textwrap.fill(tick, _NAME_CHARACTERS, break_long_words=False)


def _name_lying(axes: "Axes", figure: Figure) -> None:
    ticks = figure.x_ticks or ()
    axes.set_yticks(range(len(ticks)), [_name(tick) for tick in ticks])
    # The first category on top, as in a table.
    axes.set_ylim(len(ticks) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(figure.y_label)
    if figure.y_from_zero and not _has_negative(figure):
        axes.set_xlim(0, None if _has_positive(figure) else 1)


def _name_standing(axes: "Axes", figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    if figure.y_from_zero and not _has_negative(figure):
        axes.set_ylim(0, None if _has_positive(figure) else 1)
    if figure.x_ticks is not None:
        ticks = figure.x_ticks
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        if _has_long_ticks(figure):
            axes.tick_params(axis="x", rotation=90)
    elif all(float(x).is_integer() for one in figure.series for x in one.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _has_negative(figure: Figure) -> bool:
    values = [[*one.y, *(one.low or ())] for one in figure.series]
    return any(value < 0 for some in values for value in some)


def _has_positive(figure: Figure) -> bool:
    values = [[*one.y, *(one.high or ())] for one in figure.series]
    return any(value > 0 for some in values for value in some)


def _draw_series(
    axes: "Axes", series: Sequence[Series], palette: _Palette, *, is_lying: bool
) -> None:
    num_bars = sum(one.style == "bars" for one in series)
    places = count()
    base: dict[int | float, float] = {}
    for index, one in enumerate(series):
        look = _look(index, palette)
        if one.style == "bars":
            width = 0.8 / num_bars
            shift = (next(places) - (num_bars - 1) / 2) * width
            middles = [x + shift for x in one.x]
            _draw_bars(axes, one, middles, 0.92 * width, look, is_lying=is_lying)
            _draw_errors(axes, one, middles, palette.ink, is_lying=is_lying)
        elif one.style == "stacked":
            bottoms = [base.get(x, 0.0) for x in one.x]
            _draw_bars(axes, one, one.x, 0.62, look, is_lying=is_lying, bottoms=bottoms)
            base.update({x: low + y for x, low, y in zip(one.x, bottoms, one.y, strict=True)})
        else:
            _draw_curve(axes, one, look)


class _Look(NamedTuple):
    """What tells a series from the others: a colour, and something else for who sees none."""

    color: str
    marker: str
    dash: Any
    hatch: str
    edge: str
    """Of a hatch."""


def _look(index: int, palette: _Palette) -> _Look:
    # A second round of colours gets other markers.
    turn = index // len(palette.series) + index
    return _Look(
        palette.series[index % len(palette.series)],
        _MARKERS[turn % len(_MARKERS)],
        _DASHES[index % len(_DASHES)],
        _HATCHES[index % len(_HATCHES)],
        palette.paper,
    )


def _draw_bars(
    axes: "Axes",
    one: Series,
    middles: Numbers,
    width: float,
    look: _Look,
    *,
    is_lying: bool,
    bottoms: Numbers | None = None,
) -> None:
    below = bottoms or [0.0] * len(middles)
    shown: dict[str, Any] = {
        "color": look.color,
        "label": one.label or None,
        "hatch": look.hatch,
        "edgecolor": look.edge,
        "linewidth": 0,
    }
    if is_lying:
        axes.barh(middles, one.y, width, left=below, **shown)
    else:
        axes.bar(middles, one.y, width, bottom=below, **shown)


def _draw_errors(
    axes: "Axes", one: Series, middles: Numbers, color: str, *, is_lying: bool
) -> None:
    if one.low is None or one.high is None:
        return
    look: dict[str, Any] = {"linestyle": "none", "ecolor": color, "elinewidth": 0.9, "capsize": 2}
    if is_lying:
        axes.errorbar(one.y, middles, xerr=_errors(one), **look)
    else:
        axes.errorbar(middles, one.y, yerr=_errors(one), **look)


def _draw_curve(axes: "Axes", one: Series, look: _Look) -> None:
    # Hollow, so that a curve that lies on another does not hide it.
    axes.plot(
        one.x,
        one.y,
        linestyle={"points": "none", "dashed": "--"}.get(one.style, look.dash),
        marker="none" if one.style == "dashed" else look.marker,
        markerfacecolor="none",
        markeredgewidth=1.2,
        color=look.color,
        label=one.label or None,
        # A marker on the axis is whole.
        clip_on=False,
    )
    if one.low is None or one.high is None:
        return
    if one.style == "points":
        _draw_errors(axes, one, one.x, look.color, is_lying=False)
    else:
        axes.fill_between(one.x, one.low, one.high, color=look.color, alpha=0.18, linewidth=0)


def _errors(one: Series) -> list[list[int | float]]:
    """Distances down and up; a bound on the wrong side of its value is no distance."""
    assert one.low is not None
    assert one.high is not None
    down = [max(0.0, y - low) for y, low in zip(one.y, one.low, strict=True)]
    return [down, [max(0.0, high - y) for y, high in zip(one.y, one.high, strict=True)]]
