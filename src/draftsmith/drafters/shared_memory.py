"""What an engine's texts leave behind for those that come: their words, and what was learnt."""

from collections.abc import Sequence

from draftsmith.core.values import check_whole, require
from draftsmith.drafters.evidence import FIRST_WEIGHTS
from draftsmith.drafters.memory import BOUNDS
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.suffix_automaton import NOWHERE, Cursor, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable

__all__ = ["MemoryReader", "SharedMemory"]

_MOST_OF_TEXT = 4_096
"""Of one text, its end."""
_OVERLAP = 16
"""Tokens that are read again where a text goes on from a known beginning."""
_LOOK_BACK = 64
"""Tokens at the end of a text that a match is looked for in."""


class SharedMemory:
    """Texts in two generations, a table of successors, and what guesses are worth.

    When the newer generation is full, the older one is dropped: of past texts, between one and two
    times `most_tokens` are known, in about 100 bytes each.

    Args:
        most_tokens: Of one generation.
        most_contexts: Of each kind in the table.

    Raises:
        InvalidRequestError: If one of them is less than 2.

    Example:
        >>> memory = SharedMemory()
        >>> memory.add([1, 2, 3, 4])
        >>> reader = MemoryReader(memory)
        >>> reader.read([9, 2, 3])
        >>> automaton, cursor = reader.match
        >>> automaton.copied(cursor, 5)
        [4]
    """

    def __init__(
        self, most_tokens: int = BOUNDS.tokens, most_contexts: int = BOUNDS.contexts
    ) -> None:
        self.most_tokens = check_whole("most_tokens", most_tokens)
        require(self.most_tokens >= 2, "most_tokens", "2 or more", most_tokens)
        self.older: SuffixAutomaton | None = None
        self.newer = SuffixAutomaton()
        self.table = SuccessorTable(most_contexts)
        self.odds = Odds(FIRST_WEIGHTS)

    def add(self, text: Sequence[int]) -> None:
        """Keep a text that has ended; a beginning that is known is not kept twice."""
        text = text[-_MOST_OF_TEXT:]
        cursor, known = NOWHERE, 0
        for known, token in enumerate(text):
            cursor = self.newer.step(cursor, token)
            if cursor[1] <= known:
                break
        else:
            return
        text = text[max(0, known - _OVERLAP) :][-self.most_tokens :]
        if len(self.newer) + len(text) > self.most_tokens and len(self.newer):
            self.older, self.newer = self.newer, SuffixAutomaton()
        self.newer.add(text)


class MemoryReader:
    """Where one growing text stands in a memory.

    Args:
        memory: Shared with others, which add to it meanwhile.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._places: list[tuple[SuffixAutomaton, Cursor]] = []
        self._num_read = 0

    @property
    def match(self) -> tuple[SuffixAutomaton | None, Cursor]:
        """The longest match; of equals, that in the newer texts."""
        best: tuple[SuffixAutomaton | None, Cursor] = (None, NOWHERE)
        for automaton, cursor in self._places:
            if cursor[1] > best[1][1]:
                best = automaton, automaton.settled(cursor)
        return best

    def read(self, tokens: Sequence[int], common: int = 0) -> None:
        """Follow a text.

        Args:
            tokens: All of it.
            common: Tokens at its beginning that are as they were the last time.
        """
        memory = self._memory
        current = [memory.newer] if memory.older is None else [memory.newer, memory.older]
        held = {id(automaton): cursor for automaton, cursor in self._places}
        is_longer = self._num_read == common
        self._places = []
        for automaton in current:
            cursor = held.get(id(automaton)) if is_longer else None
            new = tokens[common:]
            if cursor is None:
                cursor, new = NOWHERE, tokens[-_LOOK_BACK:]
            for token in new:
                cursor = automaton.step(cursor, token)
            self._places.append((automaton, cursor))
        self._num_read = len(tokens)
