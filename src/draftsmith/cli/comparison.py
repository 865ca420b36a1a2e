"""How a reproduction is shown and written: the terminal, a document, a page, plots."""

import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from draftsmith.cli.files import FileOptions
from draftsmith.cli.stdout import rich_console, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

    from draftsmith.papers.comparison import Cell, Item
    from draftsmith.report.page import Section, Table

__all__ = ["console", "print_item", "print_items", "write"]

_PAPERS = {
    "leviathan": "Fast Inference from Transformers via Speculative Decoding (arXiv:2211.17192)",
    "chen": "Accelerating LLM Decoding with Speculative Sampling (arXiv:2302.01318)",
}


def console() -> "Console":
    """Where the comparison is shown: stdout."""
    return rich_console(highlight=False, soft_wrap=True)


def print_items(paper: str, items: Sequence["Item"]) -> None:
    """Show every item and what they come to."""
    from draftsmith.papers.pages import verdict

    out = console()
    out.print(f"[bold]{_PAPERS[paper]}[/bold]")
    for item in items:
        print_item(out, item)
    out.print(f"\n[bold]{verdict(items)}[/bold]")


def print_item(out: "Console", item: "Item") -> None:
    """Show one table, figure or statement of a paper."""
    from rich.markup import escape

    out.print(f"\n[bold]{item.place}[/bold]: {escape(item.title)}")
    for remark in item.remarks:
        out.print(remark, style="dim", markup=False)
    if item.cells:
        _print_cells(out, item.cells)
        out.print(item.rule, style="dim", markup=False)
    for claim in item.claims:
        held = f"holds at {claim.num_held} of {claim.num_points} points"
        out.print(f"{escape(claim.text)}: {_marked(claim.mark.value, held)}")
    for table in item.tables:
        _print_table(out, table)


def _print_cells(out: "Console", cells: Sequence["Cell"]) -> None:
    from rich.markup import escape

    notes = [cell.note for cell in cells if cell.note]
    table = _table(["", "theirs", "ours"])
    table.add_column("", no_wrap=True)
    for cell in cells:
        number = f" ({notes.index(cell.note) + 1})" if cell.note else ""
        mark = _marked(cell.mark.value, cell.mark.value) + number
        table.add_row(escape(cell.label), cell.printed, cell.ours, mark)
    out.print(table)
    for number, note in enumerate(notes, start=1):
        out.print(f"({number}) {note}", style="dim", markup=False)


def _print_table(out: "Console", table: "Table") -> None:
    from rich.markup import escape

    shown = _table(table.columns)
    for row in table.rows:
        shown.add_row(*map(escape, row))
    if table.caption:
        out.print(table.caption, style="dim", markup=False)
    out.print(shown)


def _table(columns: Sequence[str]) -> "Grid":
    from rich.table import Table as Grid

    table = Grid(box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _marked(mark: str, text: str) -> str:
    style = "green" if mark == "same" else "yellow"
    return f"[{style}]{text}[/{style}]"


def write(
    report: FileOptions,
    paper: str,
    items: Sequence["Item"],
    further: dict[str, Any],
    sections: "Sequence[Section]",
) -> None:
    """Write what was asked for.

    Args:
        report: Where to.
        paper: "leviathan" or "chen".
        items: What was computed or measured.
        further: What else the document holds.
        sections: What else the page shows.

    Raises:
        InvalidRequestError: If a file cannot be written.
    """
    from draftsmith.papers.pages import as_document, section, verdict
    from draftsmith.report.document import environment, facts
    from draftsmith.report.document import write_json as write_document
    from draftsmith.report.html import write_text as write_file
    from draftsmith.report.page import page
    from draftsmith.report.plots import save

    where = environment() if report.json_output or report.json_file or report.html else {}
    document = {**as_document(paper, items), **further, "environment": where}
    if report.json_output:
        write_json(document)
    if report.json_file is not None:
        write_document(report.json_file, document)
    if report.html is not None:
        parts = [*(section(item) for item in items), *sections]
        command = shlex.join(["draftsmith", *sys.argv[1:]])
        text = page(_PAPERS[paper], verdict(items), parts, facts(where, command))
        write_file(report.html, text, "--html")
    if report.plots is not None:
        for figure in (figure for item in items for figure in item.figures):
            words = re.findall(r"[a-z0-9]+", figure.title.lower())
            save(figure, report.plots / f"{paper}-{'-'.join(words)}.svg")
