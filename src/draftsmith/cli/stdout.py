"""What goes to stdout, the product's own stream."""

import json
import math
import sys
from typing import Any

__all__ = ["is_unicode", "write_json", "write_text"]


def write_text(text: str) -> None:
    """Write at once; what the terminal's encoding lacks becomes a question mark."""
    encoding = _encoding()
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()


def write_json(document: object) -> None:
    """Write one line of JSON; an infinity, which JSON lacks, becomes null."""
    finite = _without_infinities(document)
    write_text(json.dumps(finite, ensure_ascii=not is_unicode(), allow_nan=False) + "\n")


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return _encoding().lower().replace("-", "") == "utf8"


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def _without_infinities(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return value
