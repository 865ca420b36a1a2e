"""A report's table in the terminal."""

from typing import TYPE_CHECKING

from draftsmith.cli.stdout import rich_console

if TYPE_CHECKING:
    from draftsmith.report.page import Table

__all__ = ["print_table"]

_WIDTH = 160
"""Where stdout is no terminal: a table that is read later should not be cut."""


def print_table(table: "Table") -> None:
    """Write a table to stdout, its caption above it."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False, title_justify="left", header_style="bold")
    for index, name in enumerate(table.columns):
        grid.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(Text, row))
    plain = rich_console(highlight=False)
    console = plain if plain.is_terminal else rich_console(highlight=False, width=_WIDTH)
    console.print(Text(table.caption, style="bold"))
    console.print(grid)
    console.print()
