"""What was typed: each option's spelling and value, beside all of the option's names."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cyclopts import App, CycloptsError

__all__ = ["Typed", "options_of"]


class Typed(NamedTuple):
    """One option on a command line."""

    spelling: str
    """As typed, such as `-n`."""
    names: tuple[str, ...]
    """All names of the option."""
    value: str | None
    """What was given; None for a flag."""


def options_of(app: App, arguments: Sequence[str]) -> tuple[dict[str, str], list[Typed]]:
    """The command's options by Python's name for each, and those that were typed.

    Args:
        app: The whole command line.
        arguments: What was typed, less the program's name.
    """
    tokens = list(arguments)
    if {*app.help_flags, *app.version_flags} & set(tokens):
        return {}, []  # they are commands of their own, without options
    try:
        _, apps, rest = app.parse_commands(tokens)
        collection = apps[-1].assemble_argument_collection()
    except (CycloptsError, ValueError):
        return {}, []
    names = [tuple(one.names) for one in collection]
    options = {
        name.removeprefix("--").replace("-", "_"): each[0]
        for each in names
        for name in each
        if name.startswith("--")
    }
    return options, list(_typed(rest, names))


def _typed(tokens: Sequence[str], options: Sequence[tuple[str, ...]]) -> Iterator[Typed]:
    for number, token in enumerate(tokens):
        if token == "--":
            return
        spelling, equals, value = token.partition("=")
        if not spelling.startswith("-"):
            continue
        names = next((one for one in options if spelling.replace("_", "-") in one), None)
        if names is None:
            continue
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        if following is not None and following != "-" and following.startswith("-"):
            following = None
        yield Typed(spelling, names, value if equals else following)
