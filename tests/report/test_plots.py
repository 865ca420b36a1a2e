"""Plots: the same bytes for the same figure, nothing drawn over anything else."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.report import plots
from draftsmith.report.figure import Figure, Series, Style

_LONG = [f"a-draft-with-a-long-name, gamma {number}" for number in range(9)]
_FIGURES = {
    "curves": Figure(
        "A title that is much too long for one line of so narrow a figure, and goes on",
        "gamma",
        "speed-up",
        [
            Series("observed, with a long label", [0, 1, 2], [1, 2, 3], [1, 1, 2], [1, 3, 4]),
            Series("predicted", [0, 1, 2], [1, 2, 2.5], style="dashed"),
            Series("points", [0, 1, 2], [1, 1.5, 1], [0, 1, 1], [2, 2, 2], style="points"),
        ],
        reference=1,
    ),
    "bars": Figure(
        "Bars",
        "kept",
        "rounds",
        [
            Series("a", [0, 1], [3, math.nan], style="bars"),
            Series("b", [0, 1], [4, 2], [3, 1], [5, 2], style="bars"),
        ],
        x_ticks=["none", "one"],
    ),
    "lying": Figure(
        "Lying",
        "",
        "ms",
        [
            Series("draft", range(9), [1] * 9, style="stacked"),
            Series("target", range(9), [2] * 9, style="stacked"),
        ],
        x_ticks=_LONG,
    ),
    "long names under a curve": Figure(
        "Curve", "", "ms", [Series("", range(9), range(9))], x_ticks=_LONG
    ),
    "empty": Figure("Nothing was measured", "x", "y", []),
}


def _drawn(figure: Figure) -> Any:
    with plots._settings("light"):  # pyright: ignore[reportPrivateUsage] # drawn, not saved
        canvas = plots._draw(figure, plots._PALETTES["light"])  # pyright: ignore[reportPrivateUsage]
        canvas.draw_without_rendering()
    return canvas


@pytest.mark.parametrize("name", _FIGURES)
def test_no_text_lies_over_another_or_leaves_the_picture(name: str) -> None:
    canvas = _drawn(_FIGURES[name])
    axes = canvas.axes[0]
    texts = [*canvas.texts, axes.xaxis.label, axes.yaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        texts += [label for place, label in ticks if low <= place <= high]
    texts += [text for legend in canvas.legends for text in legend.get_texts()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    visible = [(text, box) for text, box in boxes if box.width > 0]
    for (one, box), (other, other_box) in combinations(visible, 2):
        assert not box.overlaps(other_box), (one, other)
    picture = canvas.bbox
    for text, box in visible:
        assert box.x0 >= picture.x0 - 1, text
        assert box.x1 <= picture.x1 + 1, text
        assert box.y0 >= picture.y0 - 1, text
        assert box.y1 <= picture.y1 + 1, text


@pytest.mark.parametrize("name", _FIGURES)
def test_the_same_figure_gives_the_same_bytes_and_themes_differ(name: str) -> None:
    figure = _FIGURES[name]
    light = plots.svg(figure)
    assert light == plots.svg(figure, "light")
    assert light.startswith("<svg")
    assert light != plots.svg(figure, "dark")
    assert "<dc:date>" not in light


def test_the_users_own_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    before = plots.svg(_FIGURES["bars"])
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # pyright: ignore[reportArgumentType]
    assert plots.svg(_FIGURES["bars"]) == before
    assert matplotlib.rcParams["font.size"] == 30


def test_bars_begin_at_zero_and_stacked_ones_on_each_other() -> None:
    canvas = _drawn(_FIGURES["lying"])
    left = [bar.get_x() for bar in canvas.axes[0].patches]
    assert left == [0.0] * 9 + [1.0] * 9
    assert canvas.axes[0].get_xlim()[0] == 0
    # The first category is on top, as in a table.
    bottom, top = canvas.axes[0].get_ylim()
    assert bottom > top


@pytest.mark.parametrize("style", get_args(Style))
def test_a_series_with_a_name_has_it_in_a_legend_also_where_it_is_alone(style: Style) -> None:
    for label in ("a", ""):
        figure = Figure("t", "x", "y", [Series(label, [0], [1], style=style)], x_ticks=["a"])
        assert len(_drawn(figure).legends) == len(label)


def test_curves_and_bars_are_told_apart_without_colour() -> None:
    looks = [plots._look(index, plots._PALETTES["light"]) for index in range(14)]  # pyright: ignore[reportPrivateUsage]
    assert len({(look.marker, look.dash) for look in looks}) == 14
    curves = [Series(str(number), [0, 1], [0, 1]) for number in range(3)]
    lines = _drawn(Figure("t", "x", "y", curves)).axes[0].lines
    # Hollow: the one on top hides none of those below.
    assert {line.get_markerfacecolor() for line in lines} == {"none"}
    for style in ("bars", "stacked"):
        parts = [Series(str(number), [0], [1], style=style) for number in range(5)]
        patches = _drawn(Figure("t", "x", "y", parts, x_ticks=["a"])).axes[0].patches
        assert len({patch.get_hatch() for patch in patches}) == 5


def test_nothing_but_zeros_has_an_axis_up_to_one() -> None:
    figure = Figure("t", "x", "y", [Series("", [0, 1], [0, 0])])
    assert _drawn(figure).axes[0].get_ylim() == (0, 1)


def test_a_curve_may_leave_zero_out() -> None:
    figure = Figure("t", "x", "y", [Series("", [0, 1], [10, 11])], y_from_zero=False)
    assert _drawn(figure).axes[0].get_ylim()[0] > 5


@pytest.mark.parametrize("suffix", ["svg", "png", "PNG"])
def test_a_plot_is_written_in_the_form_that_its_name_asks_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    plots.save(_FIGURES["bars"], path)
    start = path.read_bytes()[:8]
    assert start.startswith(b"<svg" if suffix == "svg" else b"\x89PNG")
    first = path.read_bytes()
    plots.save(_FIGURES["bars"], path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", [r"a $\frac{b$ c", "$x^$", "cost $5 and $6"])
def test_a_dollar_in_a_name_is_a_dollar(name: str) -> None:
    figure = Figure(name, name, name, [Series(name, [0], [1], style="bars")], x_ticks=[name])
    assert plots.svg(figure).startswith("<svg")
    plain, priced = (Figure(title, "x", "y", figure.series) for title in ("$5", "$5$"))
    assert plots.svg(plain).count("<use") == plots.svg(priced).count("<use") - 1


def test_another_suffix_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"must end in \.svg or \.png"):
        plots.save(_FIGURES["bars"], tmp_path / "plot.jpg")
    for suffix in ("svg", "png"):
        with pytest.raises(InvalidRequestError, match="cannot be written: No such file"):
            plots.save(_FIGURES["bars"], tmp_path / "nowhere" / f"plot.{suffix}")


@pytest.mark.parametrize("style", ["line", "bars"])
def test_series_that_contradict_themselves_are_refused(style: Style) -> None:
    with pytest.raises(InvalidRequestError, match="equally many"):
        Series("s", [1, 2], [1], style=style)
    with pytest.raises(InvalidRequestError, match="low and high, or neither"):
        Series("s", [1], [1], low=[1], style=style)
    with pytest.raises(InvalidRequestError, match="2 x_ticks, but a series at x = 2"):
        Figure("f", "x", "y", [Series("s", [0, 2], [1, 1])], x_ticks=["a", "b"])


def test_a_figure_of_nothing_is_drawn() -> None:
    """A measurement that was cut off before its first arm was done."""
    assert plots.svg(Figure("Nothing yet", "", "y", [], "", [], reference=1))
