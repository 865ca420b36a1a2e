"""What Leviathan et al. print, item by item: which agree, and which slips are found."""

from functools import cache

import pytest

from draftsmith.core import theory
from draftsmith.papers import leviathan
from draftsmith.papers import printed_leviathan as printed
from draftsmith.papers.comparison import Item, Mark, number


@cache
def items() -> list[Item]:
    return leviathan.computed()


def item(place: str, title: str = "") -> Item:
    (found,) = [one for one in items() if one.place == place and title in one.title]
    return found


@pytest.mark.parametrize(
    ("place", "title", "num_same", "num_differs"),
    [
        ("Table 1", "", 12, 0),
        ("Figure 3", "", 8, 0),
        ("Table 4", "", 9, 3),
        ("Corollary 3.9", "", 3, 0),
        ("Section 3.6", "", 1, 0),
        ("Tables 3, 4, 5", "", 1, 0),
        ("Appendix A.5", "sampling", 1, 3),
        ("Appendix A.5", "argmax", 4, 0),
    ],
)
def test_so_many_agree(place: str, title: str, num_same: int, num_differs: int) -> None:
    found = item(place, title)
    assert (found.count(Mark.SAME), found.count(Mark.DIFFERS)) == (num_same, num_differs)


def test_the_three_slips_of_table_4_are_named_and_explained() -> None:
    slips = [cell for cell in item("Table 4").cells if cell.mark is Mark.DIFFERS]
    assert [cell.label for cell in slips] == [
        "EnDe T5-base t = 1, gamma = 5",
        "EnDe T5-large t = 1, gamma = 3",
        "CNNDM T5-large t = 1, gamma = 3",
    ]
    for cell in slips:
        assert cell.note.startswith("the paper's slip")
        assert cell.note.endswith("which covers it")


def test_three_speeds_of_lenient_sampling_cannot_be_derived() -> None:
    cells = item("Appendix A.5", "sampling").cells
    assert [round(cell.value, 2) for cell in cells] == [2.33, 2.94, 3.45, 4.79]
    assert ["not derivable" in cell.note for cell in cells] == [True, True, True, False]
    # By brute force over gamma, from inputs at the edge of their rounding.
    for cell, alpha in zip(cells[:3], (0.625, 0.715, 0.765), strict=True):
        best = max(theory.walltime_factor(alpha, gamma, 0.0145) for gamma in range(200))
        assert best < number(cell.printed) - 0.05


def test_every_printed_row_is_compared() -> None:
    assert len(item("Table 1").cells) == 2 * len(printed.TABLE_1)
    assert len(item("Table 4").cells) == len(printed.TABLE_4) == 12
    assert len(item("Figure 3").cells) == 2 * len(printed.FIGURE_3)
    assert len(printed.TABLE_3) == 16


def test_the_printed_tables_agree_with_each_other() -> None:
    speeds = {(row.task, row.draft, row.temperature): row for row in printed.TABLE_4}
    assert len(speeds) == 12
    assert item("Tables 3, 4, 5").claims[0].num_points == 16


def test_a_wrong_formula_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the emitted token is forgotten."""
    tokens = theory.expected_tokens

    def without(alpha: float, gamma: float) -> float:
        return tokens(alpha, gamma) - alpha**gamma

    monkeypatch.setattr(theory, "expected_tokens", without)
    differs = sum(one.count(Mark.DIFFERS) for one in leviathan.computed())
    assert differs > 20


def test_the_figures_have_the_papers_curves() -> None:
    curves = {one.place: [len(figure.series) for figure in one.figures] for one in items()}
    assert curves["Figure 2"] == [5]
    assert curves["Figure 3"] == [4]
    assert curves["Figure 4"] == [5, 5]
    (figure,) = item("Figure 2").figures
    assert figure.series[-1].y[-1] == pytest.approx(10.0)
    assert figure.series[0].y[0] == pytest.approx(1.5)
    assert [row[1:] for row in item("Figure 3").tables[0].rows] == [
        ["5", "7", "9", "11", "14", "17", "24"],
        ["4", "6", "8", "9", "11", "14", "19"],
        ["3", "4", "6", "7", "8", "10", "13"],
        ["2", "3", "4", "5", "6", "7", "10"],
    ]
