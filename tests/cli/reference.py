"""The tables of docs/cli.md, made of the command line itself.

`python -m tests.cli.reference` writes them into the page, between its markers.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from cyclopts import App
from cyclopts.argument import Argument

from draftsmith.cli import app

__all__ = ["PAGE", "commands", "options", "with_tables"]

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_MARKED = re.compile(r"(<!-- options of (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands(parent: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """Every command by its name."""
    for name in parent:
        if name.startswith("-"):
            continue
        command = parent[name]
        if command.default_command is not None:
            yield " ".join((*words, name)), command
        yield from commands(command, (*words, name))


def options(command: App) -> list[Argument]:
    """What can be typed after a command, with its help."""
    found = command.assemble_argument_collection(parse_docstring=True)
    return [one for one in found if one.parse and one.show and one.names[0] != "*"]


def with_tables(page: str) -> str:
    """The page with every table as it must be."""
    found = dict(commands())
    return _MARKED.sub(lambda match: match[1] + _table(found[match[2]]) + match[3], page)


def _table(command: App) -> str:
    rows = [
        "| option | value | what it does |",
        "|---|---|---|",
        *map(_row, options(command)),
    ]
    return "\n".join(rows) + "\n"


def _row(argument: Argument) -> str:
    names = ", ".join(f"`{name}`" for name in argument.names)
    text = " ".join((argument.parameter.help or "").split()).replace("|", "\\|")
    default = argument.field_info.default
    has_default = isinstance(default, str | int | float | tuple) and default not in (False, ())
    if has_default and argument.parameter.show_default is not False:
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text.removesuffix('.')}. Default: {shown}."
    value = "" if argument.parameter.count else _value(argument.hint)
    return f"| {names} | {value} | {text} |"


def _value(hint: object) -> str:
    if hint is bool:
        return ""
    parts = [part for part in get_args(hint) if part not in (type(None), Ellipsis)]
    if not parts:
        names = {"str": "text", "int": "whole number", "float": "number", "Path": "path"}
        name = getattr(hint, "__name__", str(hint))
        return names.get(name, name)
    if str(hint).startswith("typing.Literal"):
        return ", ".join(f"`{part}`" for part in parts)
    return " or ".join(dict.fromkeys(_value(part) for part in parts))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
