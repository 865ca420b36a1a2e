"""What all our pages share: the shell, the colours in light and dark, and the way to disk."""

import os
from html import escape
from pathlib import Path

from draftsmith.errors import InvalidRequestError

__all__ = ["cannot_write", "check_writable", "shell", "write_text"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --muted: #5c5c5c;
  --line: #d8d8d8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181a; --muted: #a4a4a4;
  --line: #3a3d40; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
"""


def shell(title: str, style: str, body: str) -> str:
    """A whole page that needs nothing from anywhere.

    Args:
        title: Plain text.
        style: CSS, after the common one.
        body: HTML; the caller has escaped it.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body>\n"
        f"{body}\n</body></html>\n"
    )


def check_writable(path: Path, what: str) -> None:
    """Refuse a path that cannot be written, without touching it.

    Args:
        path: A file, there or not.
        what: Names it in the refusal, such as "trace page".

    Raises:
        InvalidRequestError: With the reason.
    """
    folder = path.parent
    if path.is_dir():
        raise cannot_write(path, what, "it is a folder; name a file")
    if not folder.is_dir():
        raise cannot_write(path, what, f"there is no folder {folder}; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise cannot_write(path, what, "permission denied; name another place")


def write_text(path: Path, text: str, what: str) -> None:
    """Write a file, or say in one line why not.

    Raises:
        InvalidRequestError: With the reason.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, what, error.strerror or type(error).__name__) from error


def cannot_write(path: Path, what: str, why: str) -> InvalidRequestError:
    """The refusal of a file."""
    return InvalidRequestError(f"{what} {path} cannot be written: {why}")
