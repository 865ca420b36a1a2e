"""What Chen et al. print, held against itself."""

from functools import cache

import pytest

from draftsmith.core.inverse import implied_alpha
from draftsmith.core.theory import expected_tokens
from draftsmith.papers import chen
from draftsmith.papers.comparison import Item, Mark


@cache
def items() -> dict[tuple[str, str], Item]:
    return {(one.place, one.title): one for one in chen.computed()}


def item(place: str, title: str = "") -> Item:
    (found,) = [one for key, one in items().items() if key[0] == place and title in key[1]]
    return found


@pytest.mark.parametrize(
    ("place", "title", "num_same", "num_differs"),
    [
        ("Table 1", "printed beside", 2, 1),
        ("Figure 1, right", "", 1, 1),
        ("Figure 1, middle", "", 4, 0),
        ("Figure 1, left", "", 7, 1),
        ("Section 6.1", "", 1, 0),
    ],
)
def test_so_many_agree(place: str, title: str, num_same: int, num_differs: int) -> None:
    found = item(place, title)
    assert (found.count(Mark.SAME), found.count(Mark.DIFFERS)) == (num_same, num_differs)


def test_the_slip_of_table_1_is_named() -> None:
    (slip,) = [one for one in item("Table 1", "printed").cells if one.mark is Mark.DIFFERS]
    assert slip.label.startswith("XSum nucleus")
    assert slip.value == pytest.approx(1.875)
    assert "7.34 ms" in slip.note


def test_no_difference_goes_without_a_note() -> None:
    cells = [cell for one in items().values() for cell in one.cells]
    assert all(cell.note for cell in cells if cell.mark is Mark.DIFFERS)


def test_what_table_1_implies_at_k_4() -> None:
    assert [row[1:] for row in item("Table 1", "imply").tables[0].rows] == [
        ["2.98", "0.60", "0.74"],
        ["3.20", "0.64", "0.77"],
        ["3.91", "0.78", "0.88"],
    ]


def test_the_loop_is_a_straight_line_between_its_read_ends() -> None:
    assert chen.loop_ms(0) == pytest.approx(14.1)
    assert chen.loop_ms(7) == pytest.approx(28.6)
    assert chen.loop_ms(4) == pytest.approx(22.386, abs=1e-3)


@pytest.mark.parametrize("gamma", [1, 4, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.88, 1.0])
def test_the_implied_alpha_undoes_equation_1(alpha: float, gamma: int) -> None:
    assert implied_alpha(expected_tokens(alpha, gamma), gamma) == pytest.approx(alpha, abs=1e-9)
