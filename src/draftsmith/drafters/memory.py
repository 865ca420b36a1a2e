"""What the free draft knows: a memory that texts share, and what it makes of one text.

Two twins: `plain_memory.py` in Python, `native_memory.py` on the compiled library. Their drafts are
the same, and so are their files.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from draftsmith.drafters.contract import CheckedText
from draftsmith.drafters.evidence import FIRST_WEIGHTS
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.token_recycling import NUM_SUCCESSORS
from draftsmith.models.follower import common_prefix

__all__ = ["BOUNDS", "NOTHING", "Bounds", "Contents", "Memory", "Proposed", "Text", "common_with"]

_TAIL = 64
"""Tokens at the end that are compared."""


class Bounds(NamedTuple):
    """How much is kept."""

    tokens: int = 32_768
    """Of one generation of texts that have ended."""
    contexts: int = 32_768
    """Of each kind, with what followed."""
    text: int = 65_536
    """Tokens of one text, before its older half is forgotten."""


BOUNDS = Bounds()


class Contents(NamedTuple):
    """All that a memory holds; rows are padded with -1."""

    older: NDArray[np.int32]
    """Texts of the older generation, -1 behind each."""
    newer: NDArray[np.int32]
    pairs: NDArray[np.int64]
    """Two tokens in one number, those seen longest ago first."""
    pair_rows: NDArray[np.int32]
    """What was likely behind them."""
    tokens: NDArray[np.int64]
    token_rows: NDArray[np.int32]
    weights: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> "Contents":
        """Of a memory that has seen no text."""
        ids, keys = np.zeros(0, np.int32), np.zeros(0, np.int64)
        rows = np.zeros((0, NUM_SUCCESSORS), np.int32)
        odds = Odds(FIRST_WEIGHTS)
        weights, squares = np.array(odds.weights), np.array(odds.squares)
        return cls(ids, ids, keys, rows, keys, rows, weights, squares)


class Proposed(NamedTuple):
    """The draft for one text."""

    tokens: list[int]
    parents: list[int]
    confidences: list[float]


NOTHING = Proposed([], [], [])


class Text(ABC):
    """One text, and its last draft."""

    @abstractmethod
    def propose(self, tokens: Sequence[int], size: int, least: float, *, is_tree: bool) -> Proposed:
        """Learn what the last draft was worth, and draft.

        Args:
            tokens: The text so far.
            size: Tokens at most, 1 or more.
            least: Chance to be reached and right of a node that is worth a row.
            is_tree: Whether trees are taken, or only chains.
        """


class Memory(ABC):
    """What an engine's texts leave behind. Whoever calls holds `lock`, for its texts too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Engines of several threads may share a memory."""

    @abstractmethod
    def open_text(self, source: Sequence[int]) -> Text:
        """A text of which nothing was read.

        Args:
            source: Of an encoder, a text before.
        """

    @abstractmethod
    def keep(self, text: Text) -> None:
        """Keep a text of its own that has ended."""

    @abstractmethod
    def note(self, before: int, checked: CheckedText) -> None:
        """Keep the successors of every token that the target has read.

        Args:
            before: The token before the first; -1 where nobody knows.
            checked: What the check has shown.
        """

    @abstractmethod
    def contents(self) -> Contents:
        """All that it holds."""

    @abstractmethod
    def hold(self, contents: Contents) -> None:
        """Forget everything, and hold what another held."""

    def forget(self) -> None:
        """Forget everything."""
        self.hold(Contents.nothing())


def common_with(read: list[int], tokens: Sequence[int]) -> int:
    """How many tokens at the beginning are as they were read."""
    length = len(read)
    # Mostly it has grown. That its beginning is as it was is taken on trust: it is but a guess.
    if length and list(tokens[max(0, length - _TAIL) : length]) == read[-_TAIL:]:
        return length
    return common_prefix(read, tokens)
