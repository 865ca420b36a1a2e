"""Where a prompt comes from: the command line, a file, or standard input."""

import sys
from pathlib import Path

from draftsmith.errors import InvalidRequestError

__all__ = ["check_unicode", "read_prompt"]


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The one prompt that was given; the newline that ends a file is not part of it.

    Raises:
        InvalidRequestError: If there is none, or two, or it is empty, unreadable or not UTF-8.
    """
    if prompt is not None and file is not None:
        raise InvalidRequestError(f"give a prompt or --file {file}, not both")
    if prompt is None and file is None:
        raise InvalidRequestError("no prompt: give one, or --file FILE (- is standard input)")
    text = check_unicode(prompt or "", "the prompt") if file is None else _read(file)
    if not text:
        where = "" if file is None else f" (--file {file})"
        raise InvalidRequestError(f"the prompt is empty{where}: give at least one character")
    return text


def check_unicode(text: str, name: str) -> str:
    """Return a text that came from outside, if it can be encoded.

    Raises:
        InvalidRequestError: If it holds bytes that were no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name} is not UTF-8 text: convert it") from error
    return text


def _read(file: Path) -> str:
    name = "prompt from standard input" if str(file) == "-" else f"prompt file {file}"
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return _without_last_newline(content.decode())
    except OSError as error:
        raise InvalidRequestError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{name} is not UTF-8 text (byte {error.start}): convert it"
        ) from error


def _without_last_newline(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
