"""What a request's text begins with: requests that begin alike go to one engine's cache."""

import hashlib
import json
from typing import Any, cast

__all__ = ["beginning_of"]

_CHARACTERS = 512
"""Enough to tell system prompts apart; texts that differ later share what they can."""


def beginning_of(body: bytes) -> str | None:
    """A key that requests with the same beginning share; None where there is no text.

    Example:
        >>> one, other = (b'{"prompt": "Once", "seed": %d}' % seed for seed in (1, 2))
        >>> beginning_of(one) == beginning_of(other)
        True
        >>> beginning_of(b"") is None
        True
    """
    try:
        asked: Any = json.loads(body)
    # Whatever is wrong with it, the engine says so.
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict):
        return None
    fields = cast(dict[str, Any], asked)
    texts = [fields[name] for name in ("instructions", "messages", "prompt", "input")
             if fields.get(name)]  # fmt: skip
    if not texts:
        return None
    start = json.dumps(texts, ensure_ascii=True)[:_CHARACTERS]
    return hashlib.sha256(start.encode()).hexdigest()
