"""What goes to stdout, the product's own stream."""

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from draftsmith.cli.terminal import styled_console, text_for
from draftsmith.errors import InvalidRequestError
from draftsmith.report.finite import finite

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["flush", "is_unicode", "rich_console", "write_json", "write_text"]


def write_text(text: str) -> None:
    """Write at once; what the terminal's encoding lacks becomes a question mark.

    A terminal gets control characters by their names: see `cli.terminal`.

    Raises:
        InvalidRequestError: If nothing more can be written there.
        BrokenPipeError: If the reader went away.
    """
    _write(text if sys.stdout is None else text_for(sys.stdout, text))


def _write(text: str) -> None:
    """The text as it is, with styles that are ours."""
    if sys.stdout is None:
        raise InvalidRequestError("standard output is closed: send it to a file or /dev/null")
    encoding = _encoding()
    try:
        sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(error) from error


def write_json(document: object) -> None:
    """Write one line of JSON; an infinity, which JSON lacks, becomes null."""
    text = json.dumps(finite(document), ensure_ascii=not is_unicode(), allow_nan=False)
    write_text(f"{text}\n")


def flush() -> None:
    """Write what is still held back.

    Raises:
        InvalidRequestError: If it cannot be written.
    """
    if sys.stdout is not None:
        write_text("")


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return _encoding().lower().replace("-", "") == "utf8"


def rich_console(**options: Any) -> "Console":  # noqa: ANN401 - whatever rich's console takes
    """A console of rich on stdout, with our way of telling what goes wrong."""
    return styled_console(_Stdout(), **options)


class _Stdout(io.TextIOBase):
    """Stdout as a file, with our way of telling what goes wrong."""

    def write(self, text: str) -> int:
        """Write at once."""
        _write(text)
        return len(text)

    def isatty(self) -> bool:
        """Whether someone looks on."""
        return sys.stdout is not None and sys.stdout.isatty()

    def fileno(self) -> int:
        """Of stdout itself: rich asks it for the terminal's width."""
        return sys.stdout.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override] # a property where the base has a field
        """Of the terminal."""
        return _encoding()


def _cannot_write(error: OSError) -> InvalidRequestError:
    why = error.strerror or type(error).__name__
    return InvalidRequestError(
        f"standard output cannot be written: {why}: make room, or send it elsewhere"
    )


def _encoding() -> str:
    return (sys.stdout and sys.stdout.encoding) or "utf-8"
