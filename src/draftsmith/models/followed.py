"""What a model follows: a sequence, as tokens are committed to it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Followed", "common_prefix"]

_TAIL = 64
"""Tokens at the end in which a draft may have gone wrong."""


@runtime_checkable
class Followed(Protocol):
    """A sequence that a model follows."""

    @property
    def id(self) -> int:
        """The same from round to round, never used again for another sequence."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """Committed tokens, prompt included."""
        ...

    @property
    def source(self) -> Sequence[int]:
        """The encoder's tokens; empty for a decoder-only model."""
        ...


def common_prefix(held: Sequence[int], tokens: Sequence[int]) -> int:
    """How many tokens the two begin with in common."""
    length = min(len(held), len(tokens))
    if held[:length] == tokens[:length]:
        return length
    # Whole slices are compared a hundred times faster than tokens; they differ at the end, if so.
    sure = max(0, length - _TAIL)
    if held[:sure] != tokens[:sure]:
        sure = 0
    pairs = zip(held[sure:length], tokens[sure:length], strict=True)
    return next((i for i, (one, other) in enumerate(pairs, sure) if one != other), length)
