"""The likeliest guesses as a tree, best first, or as a chain."""

import heapq
from typing import NamedTuple, TypeAlias

from draftsmith.drafters.evidence import Known, Place, copy_known, guesses_at, next_place
from draftsmith.drafters.odds import Odds, chance_of
from draftsmith.drafters.suffix_automaton import Cursor, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable

__all__ = ["Grown", "Sources", "copy", "grow", "grow_chain"]


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
    least_chance: float = 0.02
    """A node that is less likely to be reached and right is not worth a row."""


def grow(sources: Sources, place: Place, size: int) -> Grown:
    """The `size` likeliest nodes, best first; a node's chance is the product along its path."""
    grown = Grown([], [], [], [])
    heap: list[_Waiting] = []
    least = sources.least_chance
    _wait(heap, _Siblings(_ranked(sources, place), -1, 1.0, place), 0, least)
    while heap and len(grown.tokens) < size:
        chance, _, sure, siblings = heapq.heappop(heap)
        _, token, known = siblings.ranked.pop()
        node = len(grown.tokens)
        grown.add(token, siblings.parent, sure, known)
        if node + 1 < size:
            _wait(heap, siblings, 2 * node + 1, least)
            place = next_place(siblings.place, token, sources.own, sources.shared)
            children = _Siblings(_ranked(sources, place), node, -chance, place)
            _wait(heap, children, 2 * node + 2, least)
    return grown


def grow_chain(sources: Sources, place: Place, size: int) -> Grown:
    """The likeliest next token, and so on."""
    grown = Grown([], [], [], [])
    chance = 1.0
    while len(grown.tokens) < size and (ranked := _ranked(sources, place)):
        log_odds, token, known = ranked[-1]
        sure = chance_of(log_odds)
        chance *= sure
        if chance < sources.least_chance:
            break
        grown.add(token, len(grown.tokens) - 1, sure, known)
        place = next_place(place, token, sources.own, sources.shared)
    return grown


def copy(sources: Sources, automaton: SuffixAutomaton, match: Cursor, size: int) -> Grown:
    """What followed the last time that a text ran like a long match."""
    tokens = automaton.copied(match, size)
    known = [copy_known(match[1] + step) for step in range(len(tokens))]
    confidences = [sources.odds.chance(one, sources.shift) for one in known]
    return Grown(tokens, list(range(-1, len(tokens) - 1)), confidences, known)


def _ranked(sources: Sources, place: Place) -> list[tuple[float, int, Known]]:
    """All guesses at a place, the likeliest last."""
    own, shared, table, odds, shift, _ = sources
    return odds.ranked(guesses_at(place, own, shared, table), shift)


def _wait(heap: "list[_Waiting]", siblings: "_Siblings", order: int, least: float) -> None:
    """Let the likeliest of some siblings wait for its turn; the others are less likely."""
    if siblings.ranked:
        sure = chance_of(siblings.ranked[-1][0])
        chance = siblings.chance * sure
        if chance >= least:
            heapq.heappush(heap, (-chance, order, sure, siblings))


class _Siblings(NamedTuple):
    """Guesses at one place that have not had their turn."""

    ranked: list[tuple[float, int, Known]]
    """Log-odds, token and classes, the likeliest last."""
    parent: int
    chance: float
    """Of the parent."""
    place: Place


_Waiting: TypeAlias = tuple[float, int, float, _Siblings]
"""The chance, negative; which comes first of equals; how sure the guess is; whose turn it is."""
