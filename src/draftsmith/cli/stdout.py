"""What goes to stdout, the product's own stream."""

import io
import json
import sys
from typing import IO, TYPE_CHECKING, Any, cast

from draftsmith.errors import InvalidRequestError
from draftsmith.report.finite import finite

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["flush", "is_unicode", "rich_console", "write_json", "write_text"]


def write_text(text: str) -> None:
    """Write at once; what the terminal's encoding lacks becomes a question mark.

    Raises:
        InvalidRequestError: If nothing more can be written there.
        BrokenPipeError: If the reader went away.
    """
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
    """A console of rich that writes through `write_text`."""
    from rich.console import Console

    return Console(file=cast(IO[str], _Stdout()), **options)


class _Stdout(io.TextIOBase):
    """Stdout as a file, with our way of telling what goes wrong."""

    def write(self, text: str) -> int:
        """Write at once."""
        write_text(text)
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
