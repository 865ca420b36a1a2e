"""The free draft's memory and texts in Python: what `native_memory.py` does, to be read."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from draftsmith.drafters.best_first import Grown, Sources, copy, grow, grow_chain
from draftsmith.drafters.contract import CheckedText
from draftsmith.drafters.evidence import Place
from draftsmith.drafters.growing_text import GrowingText
from draftsmith.drafters.memory import BOUNDS, Bounds, Contents, Memory, Proposed, Text
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.shared_memory import MemoryReader, SharedMemory
from draftsmith.drafters.suffix_automaton import SuffixAutomaton
from draftsmith.drafters.token_recycling import NUM_SUCCESSORS, SuccessorTable

__all__ = ["PlainMemory"]

_LONG = 12
"""A match of so many tokens is copied as it is: nothing else is asked."""
_NOTHING = Grown([], [], [], [])


class PlainMemory(Memory):
    """A `SharedMemory` and its readers.

    Args:
        bounds: How much it keeps.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        super().__init__()
        self._bounds = bounds
        self.shared = SharedMemory(bounds.tokens, bounds.contexts)

    def open_text(self, source: Sequence[int]) -> Text:
        """A text of which nothing was read."""
        return _PlainText(self.shared, source, self._bounds.text)

    def keep(self, text: Text) -> None:
        """Keep a text of its own that has ended."""
        assert isinstance(text, _PlainText)
        self.shared.add(text.grown.tokens)

    def note(self, before: int, checked: CheckedText) -> None:
        """Keep the successors of every token that the target has read."""
        rows = zip(checked.tokens, checked.parents, checked.top_ids, strict=False)
        for token, parent, ids in rows:
            self.shared.table.note(before if parent < 0 else checked.tokens[parent], token, ids)

    def contents(self) -> Contents:
        """All that it holds."""
        shared = self.shared
        pairs, tokens = shared.table.contexts()
        older = [] if shared.older is None else shared.older.text
        return Contents(
            np.array(older, dtype=np.int32),
            np.array(shared.newer.text, dtype=np.int32),
            np.array(list(pairs), dtype=np.int64),
            _table(pairs.values()),
            np.array(list(tokens), dtype=np.int64),
            _table(tokens.values()),
            np.array(shared.odds.weights),
            np.array(shared.odds.squares),
        )

    def hold(self, contents: Contents) -> None:
        """Forget everything, and hold what another held."""
        older = _automaton(contents.older.tolist())
        shared = self.shared
        shared.older = older if len(older) else None
        shared.newer = _automaton(contents.newer.tolist())
        shared.table = SuccessorTable.of(
            _contexts(contents.pairs, contents.pair_rows),
            _contexts(contents.tokens, contents.token_rows),
            self._bounds.contexts,
        )
        shared.odds = Odds(contents.weights.tolist(), contents.squares.tolist())


class _PlainText(Text):
    """One text, and its last draft."""

    def __init__(self, shared: SharedMemory, source: Sequence[int], most: int) -> None:
        self.grown = GrowingText(most)
        self._source = source
        self._shared = shared
        self._reader = MemoryReader(shared)
        self._shift = 0.0
        """Of this text's own, in log-odds."""
        self._drafted = _NOTHING
        self._num_before = 0
        """Tokens of the text when that was drafted."""

    def propose(self, tokens: Sequence[int], size: int, least: float, *, is_tree: bool) -> Proposed:
        """Learn what the last draft was worth, and draft."""
        self._read(tokens)
        shared = self._shared
        own, match = self.grown.automaton, self.grown.match
        past, past_match = self._reader.match
        sources = Sources(own, past, shared.table, shared.odds, self._shift, least)
        drafted = _NOTHING
        if match[1] >= _LONG and match[1] >= past_match[1]:
            drafted = copy(sources, own, match, size)
        elif past is not None and past_match[1] >= _LONG:
            drafted = copy(sources, past, past_match, size)
        if not drafted.tokens:
            before = tokens[-2] if len(tokens) > 1 else -1
            place = Place(before, tokens[-1], match, past_match)
            drafted = (grow if is_tree else grow_chain)(sources, place, size)
        self._drafted = drafted
        return Proposed(drafted.tokens, drafted.parents, drafted.confidences)

    def _read(self, tokens: Sequence[int]) -> None:
        """Take in what was committed."""
        common = self.grown.read(tokens, self._source)
        self._reader.read(tokens, common)
        if self._drafted.tokens and common >= self._num_before:
            came, odds = tokens[self._num_before :], self._shared.odds
            self._shift = _learn(odds, self._drafted, came, self._shift)
        self._num_before = len(tokens)


def _learn(odds: Odds, drafted: Grown, came: Sequence[int], shift: float) -> float:
    """Learn which nodes came true, of those behind nodes that did."""
    depths: list[int] = []
    for token, parent, known in zip(drafted.tokens, drafted.parents, drafted.known, strict=True):
        depth = 0 if parent < 0 else depths[parent]
        if not 0 <= depth < len(came):
            depths.append(-1)
            continue
        is_right = came[depth] == token
        shift = odds.learn(known, is_right, shift)
        depths.append(depth + 1 if is_right else -1)
    return shift


def _table(rows: Iterable[Sequence[int]]) -> NDArray[np.int32]:
    padded = [[*row, *[-1] * (NUM_SUCCESSORS - len(row))] for row in rows]
    return np.array(padded, dtype=np.int32).reshape(len(padded), NUM_SUCCESSORS)


def _contexts(keys: NDArray[np.int64], rows: NDArray[np.int32]) -> dict[int, tuple[int, ...]]:
    return {
        key: tuple(one for one in row if one >= 0)
        for key, row in zip(keys.tolist(), rows.tolist(), strict=True)
    }


def _automaton(tokens: Sequence[int]) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    for is_end, document in groupby(tokens, key=lambda token: token < 0):
        if not is_end:
            automaton.add(document)
    return automaton
