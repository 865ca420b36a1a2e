"""The likeliest guesses as a tree, best first, or as a chain."""

import heapq
from typing import NamedTuple

from draftsmith.drafters.evidence import Known, Place, copy_known, guesses_at, next_place
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.suffix_automaton import Cursor, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable

__all__ = ["Grown", "Sources", "copy", "grow", "grow_chain"]

_LEAST_CHANCE = 0.02
"""A node that is less likely to be reached and right is not worth a row anywhere."""


class Grown(NamedTuple):
    """A drafted tree."""

    tokens: list[int]
    parents: list[int]
    confidences: list[float]
    known: list[Known]
    """What each token was guessed by."""

    def add(self, token: int, parent: int, confidence: float, known: Known) -> None:
        """One more node."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.confidences.append(confidence)
        self.known.append(known)


class Sources(NamedTuple):
    """What is asked about one text."""

    own: SuffixAutomaton
    shared: SuffixAutomaton | None
    table: SuccessorTable
    odds: Odds
    shift: float


def grow(sources: Sources, place: Place, size: int) -> Grown:
    """The `size` likeliest nodes, best first; a node's chance is the product along its path."""
    grown = Grown([], [], [], [])
    own, shared, table, odds, shift = sources
    heap: list[tuple[float, int, int, int, float, Known, Place]] = []
    order, parent, chance = 0, -1, 1.0
    while True:
        if len(grown.tokens) < size:
            for token, known in guesses_at(place, own, shared, table).items():
                sure = odds.chance(known, shift)
                if chance * sure >= _LEAST_CHANCE:
                    heapq.heappush(heap, (-chance * sure, order, parent, token, sure, known, place))
                    order += 1
        if not heap or len(grown.tokens) >= size:
            return grown
        chance, _, above, token, sure, known, place = heapq.heappop(heap)
        chance, parent = -chance, len(grown.tokens)
        grown.add(token, above, sure, known)
        if parent + 1 < size:
            place = next_place(place, token, own, shared)


def grow_chain(sources: Sources, place: Place, size: int) -> Grown:
    """The likeliest next token, and so on."""
    grown = Grown([], [], [], [])
    own, shared, table, odds, shift = sources
    chance = 1.0
    while len(grown.tokens) < size:
        best = max(
            (
                (odds.chance(known, shift), -order, token, known)
                for order, (token, known) in enumerate(
                    guesses_at(place, own, shared, table).items()
                )
            ),
            default=None,
        )
        if best is None or chance * best[0] < _LEAST_CHANCE:
            break
        sure, _, token, known = best
        chance *= sure
        grown.add(token, len(grown.tokens) - 1, sure, known)
        place = next_place(place, token, own, shared)
    return grown


def copy(sources: Sources, automaton: SuffixAutomaton, match: Cursor, size: int) -> Grown:
    """What followed the last time that a text ran like a long match."""
    tokens = automaton.copied(match, size)
    known = [copy_known(match[1] + step) for step in range(len(tokens))]
    confidences = [sources.odds.chance(one, sources.shift) for one in known]
    return Grown(tokens, list(range(-1, len(tokens) - 1)), confidences, known)
