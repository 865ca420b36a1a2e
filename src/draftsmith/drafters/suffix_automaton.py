"""A suffix automaton that grows: what followed the last time that a text ran like this.

Every place where the end of a text occurred before is one state (Blumer et al. 1985), found in O(1)
amortised a token. As drafts: SAM decoding (Hu et al. 2024), SuffixDecoding (Oliaro et al. 2024).
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import TypeAlias

__all__ = ["NOWHERE", "Cursor", "Follower", "SuffixAutomaton"]

_MOST_SUFFIXES = 24
"""Suffixes of one place that are counted, longest first: only a text that repeats a few tokens has
more, and shorter ones of that are told apart by nothing."""
_MOST_FOLLOWERS = 6
"""Followers of one context that are looked at, the last ones that were new."""
_END = -1
"""Between two documents."""


Cursor: TypeAlias = tuple[int, int]
"""Where a text stands in an automaton: a state, and the length of the longest end of the text that
the automaton knows; 0 is none. Plain tuples: named ones take three times as long to make."""
NOWHERE: Cursor = (0, 0)
Follower: TypeAlias = tuple[int, int]
"""What followed a context: a token, and how often it did."""


class SuffixAutomaton:
    """The substrings of some documents: how often each occurred, where last, what followed it.

    No match runs across the end of a document. The end of a document that goes on is no occurrence
    yet: a text that is read along does not meet itself.
    A token takes two states at most, of 24 bytes each, and a state with several followers a `dict`.

    Example:
        >>> automaton = SuffixAutomaton()
        >>> automaton.add([1, 2, 3, 1, 2, 4])
        >>> cursor = automaton.find([9, 1, 2])
        >>> cursor[1], automaton.copied(cursor, 5)
        (2, [4])
    """

    def __init__(self) -> None:
        self._text = array("i")
        self._links = array("i", [-1])
        self._lengths = array("i", [0])
        self._tokens = array("i", [_END])
        """Of each state, the first token that followed; what leads there is in `_targets`."""
        self._targets = array("i", [0])
        self._others: dict[int, dict[int, int]] = {0: {}}
        """Further followers of states that have several; those of the root all."""
        self._newest = array("i", [-1])
        self._counts = array("i", [0])
        self._last = 0

    def __len__(self) -> int:
        """Tokens that were read."""
        return len(self._text)

    @property
    def num_states(self) -> int:
        """At most two a token, and one."""
        return len(self._links)

    @property
    def text(self) -> Sequence[int]:
        """All that was read, with -1 behind each document."""
        return self._text

    @property
    def last(self) -> int:
        """The state of the whole document so far."""
        return self._last

    def add(self, document: Iterable[int]) -> None:
        """Read a document from its beginning to its end."""
        self.go_to(0)
        for token in document:
            self.append(token)
        self.go_to(0)

    def go_to(self, state: int) -> None:
        """Go on behind a state: 0 begins a document; another was `last` once, and takes back.

        What was taken back keeps its occurrences.
        """
        if self._text and self._text[-1] != _END:
            self._count(self._last)
            self._text.append(_END)
        self._last = state

    def append(self, token: int) -> None:
        """Read the next token of the document."""
        last = self._last
        self._count(last, len(self._text) - 1)
        self._text.append(token)
        known = self._after(last, token)
        if known >= 0:
            self._last = self._apart(last, token, known)
            return
        lengths, links = self._lengths, self._links
        new = self._new(lengths[last] + 1)
        place = last
        while place >= 0:
            known = self._after(place, token)
            if known >= 0:
                links[new] = self._apart(place, token, known)
                break
            self._lead(place, token, new)
            place = links[place]
        self._last = new

    def find(self, text: Sequence[int]) -> Cursor:
        """The longest end of a text that is known."""
        cursor = NOWHERE
        for token in text:
            cursor = self.step(cursor, token)
        return cursor

    def step(self, cursor: Cursor, token: int) -> Cursor:
        """Where a text stands with one more token."""
        state, length = self.settled(cursor)
        while True:
            after = self._after(state, token)
            if after >= 0:
                return after, length + 1
            if state == 0:
                return NOWHERE
            state = self._links[state]
            length = self._lengths[state]

    def settled(self, cursor: Cursor) -> Cursor:
        """The same place, where what was read since has split the state."""
        state, length = cursor
        while state and length <= self._lengths[self._links[state]]:
            state = self._links[state]
        return state, length

    def shorter(self, cursor: Cursor) -> Cursor:
        """The longest shorter context that occurred elsewhere, too; length 0 is none."""
        state = self._links[cursor[0]]
        return (state, self._lengths[state]) if state > 0 else NOWHERE

    def copied(self, cursor: Cursor, count: int) -> list[int]:
        """What followed the newest occurrence, up to the end of its document.

        A document that goes on has no end: it repeats what it ran through since.
        """
        start = self._newest[cursor[0]] + 1
        if not start:
            return []
        tokens = self._text[start : start + count].tolist()
        if _END in tokens:
            return tokens[: tokens.index(_END)]
        repeated = -(-count // max(1, len(tokens)))
        return (tokens * repeated)[:count]

    def occurrences(self, cursor: Cursor) -> int:
        """How often a context occurred."""
        return self._counts[cursor[0]]

    def followers(self, cursor: Cursor) -> list[Follower]:
        """What followed a context: the newest first, then others as they are known."""
        state = cursor[0]
        newest = self._newest[state]
        if newest < 0:
            return []
        counts, first = self._counts, self._tokens[state]
        others = self._others.get(state)
        if others is None:
            return [(first, counts[self._targets[state]] or 1)]
        newest = self._text[newest + 1]
        found = [(newest, counts[self._after(state, newest)] or 1)]
        if first not in (newest, _END):
            found.append((first, counts[self._targets[state]] or 1))
        for token in reversed(others):
            if len(found) >= _MOST_FOLLOWERS:
                break
            if token != newest:
                found.append((token, counts[others[token]] or 1))
        return found

    def _after(self, state: int, token: int) -> int:
        """The state that a token leads to; -1 for none."""
        if self._tokens[state] == token:
            return self._targets[state]
        others = self._others.get(state)
        return -1 if others is None else others.get(token, -1)

    def _lead(self, state: int, token: int, target: int) -> None:
        if self._tokens[state] == token or (self._tokens[state] == _END and state):
            self._tokens[state], self._targets[state] = token, target
        else:
            self._others.setdefault(state, {})[token] = target

    def _new(self, length: int) -> int:
        self._links.append(0)
        self._lengths.append(length)
        self._tokens.append(_END)
        self._targets.append(0)
        self._newest.append(-1)
        self._counts.append(0)
        return len(self._links) - 1

    def _apart(self, place: int, token: int, known: int) -> int:
        """The state of `place` and `token` alone: what longer strings share it is split off."""
        length = self._lengths[place] + 1
        if self._lengths[known] == length:
            return known
        links = self._links
        twin = self._new(length)
        links[twin] = links[known]
        self._tokens[twin], self._targets[twin] = self._tokens[known], self._targets[known]
        if known in self._others:
            self._others[twin] = self._others[known].copy()
        self._newest[twin], self._counts[twin] = self._newest[known], self._counts[known]
        links[known] = twin
        while place >= 0 and self._after(place, token) == known:
            self._lead(place, token, twin)
            place = links[place]
        return twin

    def _count(self, state: int, end: int | None = None) -> None:
        """Count the end of the text and all its suffixes; `end` is where, if a token follows."""
        links, newest, counts = self._links, self._newest, self._counts
        for _ in range(_MOST_SUFFIXES):
            if state <= 0:
                break
            if end is not None:
                newest[state] = end
            counts[state] += 1
            state = links[state]
