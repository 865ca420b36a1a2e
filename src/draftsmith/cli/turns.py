"""The user's turns in a chat: lines that are typed or piped, one or several to a turn."""

import contextlib
import sys
from importlib import import_module

from draftsmith.cli.prompt import check_unicode
from draftsmith.errors import InvalidRequestError

__all__ = ["Interrupted", "is_terminal", "read_turn"]

_PROMPT = "> "
_MORE = ". "
_FENCE = '"""'


class Interrupted(Exception):
    """Ctrl-C while a turn was typed: what was typed of it is dropped."""


def is_terminal() -> bool:
    """Whether someone types the turns."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_turn() -> str | None:
    r"""The next turn; None at the end of the input.

    A line that ends in a backslash goes on in the next; so does everything from \"\"\" to the line
    that ends in \"\"\".

    Raises:
        Interrupted: On Ctrl-C at a terminal; elsewhere it ends the program.
        InvalidRequestError: If the input is not UTF-8, or ends within a turn of several lines.
    """
    try:
        first = _line(_PROMPT)
        if first is None:
            return None
        if first.lstrip().startswith(_FENCE):
            return _fenced(first.lstrip().removeprefix(_FENCE))
        return _joined(first)
    except KeyboardInterrupt:
        if not is_terminal():
            raise
        sys.stderr.write("\n")
        raise Interrupted from None


def _joined(line: str) -> str:
    """Lines up to one that does not end in a backslash."""
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(_next("a line that ends in a backslash goes on in the next"))
    return "\n".join(lines).strip()


def _fenced(line: str) -> str:
    """Lines up to the one that ends in the fence."""
    lines = [line]
    while not lines[-1].rstrip().endswith(_FENCE):
        lines.append(_next(f"{_FENCE} opens a turn of several lines, which {_FENCE} ends"))
    lines[-1] = lines[-1].rstrip().removesuffix(_FENCE)
    return "\n".join(lines).strip("\n")


def _next(why: str) -> str:
    line = _line(_MORE)
    if line is None:
        raise InvalidRequestError(f"standard input ends within a turn: {why}")
    return line


def _line(prompt: str) -> str | None:
    """A line as it came; None at the end."""
    try:
        return check_unicode(_typed(prompt), "a line of standard input")
    except EOFError:
        if is_terminal():
            sys.stderr.write("\n")
        return None
    except UnicodeDecodeError as error:
        raise InvalidRequestError("standard input is not UTF-8 text: convert it") from error


def _typed(prompt: str) -> str:
    if sys.stdin is None:
        raise EOFError
    if not is_terminal():
        return input()
    if not sys.stdout.isatty():
        # `input` would write its prompt to stdout, which holds the answers alone.
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return input()
    # Imported for its effect alone: it gives `input` arrow keys and a history.
    with contextlib.suppress(ImportError):
        import_module("readline")
    return input(prompt)
