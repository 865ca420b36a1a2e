"""A reproduction as a document, as a page, and as Markdown."""

from collections.abc import Sequence
from typing import Any

from draftsmith.papers.comparison import Cell, Claim, Item, Mark
from draftsmith.report.page import Section, Table

__all__ = ["as_document", "as_markdown", "section", "verdict"]


def as_document(paper: str, items: Sequence[Item]) -> dict[str, Any]:
    """Every item, ready for JSON."""
    return {
        "paper": paper,
        "num_same": sum(item.count(Mark.SAME) for item in items),
        "num_differs": sum(item.count(Mark.DIFFERS) for item in items),
        "items": [item.to_dict() for item in items],
    }


def verdict(items: Sequence[Item]) -> str:
    """What the comparison came to, in a sentence."""
    same = sum(item.count(Mark.SAME) for item in items)
    differs = sum(item.count(Mark.DIFFERS) for item in items)
    if not differs:
        return f"All {same} of the compared values agree."
    return (
        f"{same} of {same + differs} compared values agree; the notes tell of the other {differs} "
        "whose slip it is, if it is one."
    )


def section(item: Item) -> Section:
    """One item, as a part of a page."""
    notes = [f"{cell.label}: {cell.note}." for cell in item.cells if cell.note]
    tables = [_compared(item.cells), _tried(item.claims)]
    # A slip of the paper's is no failure of ours: it is told, not flagged.
    is_compared = item.count(Mark.SAME) + item.count(Mark.DIFFERS) > 0
    agreed = "info" if item.count(Mark.DIFFERS) else "pass"
    return Section(
        title=f"{item.place}: {item.title}",
        paragraphs=[*item.remarks, *filter(None, [item.rule]), *notes],
        tables=[*(table for table in tables if table.rows), *item.tables],
        figures=item.figures,
        status=agreed if is_compared else None,
    )


def as_markdown(items: Sequence[Item]) -> str:
    """Every item that compares something or has numbers of ours, a heading each."""
    parts: list[str] = []
    for item in items:
        shown = section(item)
        paragraphs = [text.replace("<", "\\<") for text in shown.paragraphs]
        blocks = [f"### {shown.title}", *paragraphs, *map(_markdown, shown.tables)]
        parts.append("\n\n".join(blocks))
    return "\n\n".join([verdict(items), *parts]) + "\n"


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---", *["--:"] * (len(table.columns) - 1)], *table.rows]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table.caption}:\n\n{grid}" if table.caption else grid


def _compared(cells: Sequence[Cell]) -> Table:
    rows = [[cell.label, cell.printed, cell.ours, cell.mark.value] for cell in cells]
    return Table("", ["", "theirs", "ours", ""], rows)


def _tried(claims: Sequence[Claim]) -> Table:
    rows = [[one.text, str(one.num_points), str(one.num_held)] for one in claims]
    return Table("", ["", "points", "held"], rows)
