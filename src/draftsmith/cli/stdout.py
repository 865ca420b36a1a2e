"""What goes to stdout, the product's own stream."""

import json
import sys

from draftsmith.report.finite import finite

__all__ = ["is_unicode", "write_json", "write_text"]


def write_text(text: str) -> None:
    """Write at once; what the terminal's encoding lacks becomes a question mark."""
    encoding = _encoding()
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()


def write_json(document: object) -> None:
    """Write one line of JSON; an infinity, which JSON lacks, becomes null."""
    text = json.dumps(finite(document), ensure_ascii=not is_unicode(), allow_nan=False)
    write_text(f"{text}\n")


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return _encoding().lower().replace("-", "") == "utf8"


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"
