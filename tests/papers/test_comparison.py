"""A comparison says same only where it is."""

import pytest

from draftsmith.papers import chen, leviathan
from draftsmith.papers.comparison import Cell, Claim, Item, Mark, last_digit, number
from draftsmith.papers.pages import as_document, section, verdict


@pytest.mark.parametrize(
    ("printed", "value", "ours"),
    [
        ("1.96X", 1.9612, "1.96X"),
        ("1.96X", 1.9551, "1.96X"),
        ("1.96X", 1.9549, "1.95X"),
        ("5X", 4.79, "5X"),
        ("3.2", 3.157, "3.2"),
        ("47.0%", 46.96, "47.0%"),
    ],
)
def test_ours_has_the_printed_digits_and_unit(printed: str, value: float, ours: str) -> None:
    assert Cell("", printed, value).ours == ours


def test_a_difference_in_the_last_digit_is_seen() -> None:
    assert Cell("", "2.4", 2.35001).mark is Mark.SAME
    assert Cell("", "2.4", 2.34999).mark is Mark.DIFFERS


def test_a_read_off_has_its_tolerance_on_both_sides() -> None:
    for value, mark in ((951, Mark.SAME), (949, Mark.DIFFERS), (1049, Mark.SAME)):
        assert Cell("", "1000", value, tolerance=0.05).mark is mark
    assert Cell("", "1000", 1051, tolerance=0.05).mark is Mark.DIFFERS


def test_printed_texts_are_numbers_with_a_last_digit() -> None:
    assert (number("0.75"), last_digit("0.75")) == (0.75, 0.005)
    assert (number("5X"), last_digit("5X")) == (5.0, 0.5)


def test_a_claim_holds_everywhere_or_not() -> None:
    assert Claim("", 3, 3).mark is Mark.SAME
    assert Claim("", 3, 2).mark is Mark.DIFFERS


ITEM = Item(
    "Table 9",
    "numbers",
    cells=[Cell("one", "1.0", 1.0), Cell("two", "2.0", 3.0, "their slip")],
    claims=[Claim("holds", 2, 2)],
)


def test_the_verdict_counts() -> None:
    assert verdict([ITEM]).startswith("2 of 3 compared values agree")
    assert (
        verdict([Item("", "", cells=[Cell("", "1", 1)])]) == "All 1 of the compared values agree."
    )


def test_the_document_and_the_section_hold_every_cell() -> None:
    document = as_document("paper", [ITEM])
    assert (document["num_same"], document["num_differs"]) == (2, 1)
    marks = [cell["mark"] for cell in document["items"][0]["cells"]]
    assert marks == ["same", "differs"]
    shown = section(ITEM)
    assert shown.status == "info"
    assert "two: their slip." in shown.paragraphs
    assert [list(row) for row in shown.tables[0].rows][1] == ["two", "2.0", "3.0", "differs"]


def test_same_states_its_rule_and_its_tolerance() -> None:
    digits, read_off = Cell("a", "1.0", 1.0), Cell("b", "100", 104, tolerance=0.05)
    item = Item("Figure 9", "numbers", cells=[digits, read_off])
    assert item.rule == f"Same means: {digits.rule}; or {read_off.rule}."
    assert "within 5 % of" in read_off.rule
    assert item.rule in section(item).paragraphs
    assert as_document("paper", [item])["items"][0]["same_means"] == item.rule
    assert Item("", "").rule == ""


def test_a_claim_that_was_tried_nowhere_does_not_hold() -> None:
    assert Claim("", 0, 0).mark is Mark.DIFFERS


@pytest.mark.parametrize("items", [chen.computed(), leviathan.computed()])
def test_every_compared_number_of_the_papers_has_a_rule(items: list[Item]) -> None:
    for item in items:
        assert bool(item.cells) == bool(item.rule), item.place
