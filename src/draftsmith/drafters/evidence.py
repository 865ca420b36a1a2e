"""What may come next at one place of a text, and what each source says of it.

Each source puts a guess in a class: how long the text matched, and whether the guess is what
followed the last time; the rank in a row of the target's. `Odds` learns what classes are worth.
"""

import math
from itertools import chain
from typing import NamedTuple, TypeAlias

from draftsmith.drafters.suffix_automaton import NOWHERE, Cursor, Follower, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable

__all__ = ["FIRST_WEIGHTS", "Known", "Place", "copy_known", "guesses_at", "next_place"]

Known: TypeAlias = tuple[int, ...]
"""The classes of a guess: indices of weights."""

_STRENGTHS = (0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6, 6, 7)
"""Of a match, by its length; beyond the table, the last."""
_NUM_STRENGTHS = 8
_ABSENT, _SHORTER, _RARE, _OFTEN, _NEWEST, _ALWAYS = range(6)
"""It did not follow; only a shorter match; seldom, or mostly, but not the last time; the last time,
beside others; whenever the text ran like this."""
_NUM_CLASSES = 6
_MOST_OF_MATCH, _MOST_OF_SHORTER = 4, 2
_UNKNOWN, _UNSEEN, _BEST = range(3)
"""There is no row; there is one, without it; it has the first rank of one."""
_RANKS = (2, 3, 4, 5, 6, 6, 6, 6)
_NUM_RANKS = 7
_COPY_LENGTHS = (12, 16, 24, 32, 64)
"""From these on, copies of a long match."""

_OWN = 0
_SHARED = _OWN + _NUM_STRENGTHS * _NUM_CLASSES
_ROWS = _SHARED + _NUM_STRENGTHS * _NUM_CLASSES
_COPIES = _ROWS + _NUM_RANKS * _NUM_RANKS


class Place(NamedTuple):
    """Where a text stands, drafted tokens included."""

    before: int
    """The token before the last one; -1 for none."""
    token: int
    own: Cursor
    shared: Cursor


def next_place(
    place: Place, token: int, own: SuffixAutomaton, shared: SuffixAutomaton | None
) -> Place:
    """The place after one more token."""
    return Place(
        place.token,
        token,
        own.step(place.own, token),
        NOWHERE if shared is None else shared.step(place.shared, token),
    )


def guesses_at(
    place: Place, own: SuffixAutomaton, shared: SuffixAutomaton | None, table: SuccessorTable
) -> dict[int, Known]:
    """All guesses at a place, and the classes of each."""
    in_own: dict[int, int] = {}
    own_absent = _OWN + _NUM_CLASSES * _classify(own, place.own, _OWN, in_own)
    in_shared: dict[int, int] = {}
    shared_absent = _SHARED
    if shared is not None and place.shared[1]:
        shared_absent += _NUM_CLASSES * _classify(shared, place.shared, _SHARED, in_shared)
    in_rows, rows_absent = _ranked(table, place)
    guesses: dict[int, Known] = {}
    for token, kind in in_own.items():
        guesses[token] = (
            kind,
            in_shared.get(token, shared_absent),
            in_rows.get(token, rows_absent),
        )
    for token, kind in in_shared.items():
        if token not in in_own:
            guesses[token] = (own_absent, kind, in_rows.get(token, rows_absent))
    for token, kind in in_rows.items():
        if token not in guesses:
            guesses[token] = (own_absent, shared_absent, kind)
    return guesses


def copy_known(length: int) -> Known:
    """The class of a token that is copied behind a match of so many tokens."""
    place = sum(length >= least for least in _COPY_LENGTHS)
    return (_COPIES + max(0, place - 1),)


def _classify(automaton: SuffixAutomaton, cursor: Cursor, first: int, found: dict[int, int]) -> int:
    """Put what followed in classes; how strong the match is."""
    followers: list[Follower] = []
    while cursor[1] and not (followers := automaton.followers(cursor)):
        cursor = automaton.shorter(cursor)
    length = cursor[1]
    if not length:
        return 0
    strength = _STRENGTHS[length] if length < len(_STRENGTHS) else _STRENGTHS[-1]
    base = first + strength * _NUM_CLASSES
    found[followers[0][0]] = base + (_ALWAYS if len(followers) == 1 else _NEWEST)
    if len(followers) > 1:
        half = automaton.occurrences(cursor) / 2
        for token, times in followers[1:_MOST_OF_MATCH]:
            found[token] = base + (_OFTEN if times >= half else _RARE)
    if length > 1 and (shorter := automaton.shorter(cursor))[1]:
        room = len(found) + _MOST_OF_SHORTER
        for token, _ in automaton.followers(shorter):
            if token not in found:
                found[token] = base + _SHORTER
                if len(found) == room:
                    break
    return strength


def _ranked(table: SuccessorTable, place: Place) -> tuple[dict[int, int], int]:
    """The classes of what was likely after the last tokens, and of everything else."""
    pair, single = table.after(place.before, place.token)
    absent = _ROWS + (_UNSEEN if pair else _UNKNOWN) * _NUM_RANKS + (_UNSEEN if single else 0)
    if pair is single:
        return {
            token: _ROWS + rank * _NUM_RANKS + rank
            for token, rank in zip(pair, _RANKS, strict=False)
        }, absent
    in_single = _UNSEEN if single else _UNKNOWN
    found = {
        token: _ROWS + rank * _NUM_RANKS + in_single
        for token, rank in zip(pair, _RANKS, strict=False)
    }
    beyond = _ROWS + (_UNSEEN if pair else _UNKNOWN) * _NUM_RANKS
    for token, rank in zip(single, _RANKS, strict=False):
        if token in found:
            found[token] += rank - in_single
        else:
            found[token] = beyond + rank
    return found, absent


def _first_weights() -> list[float]:
    """Log-odds to begin with; a few hundred tokens later they are what the texts teach."""
    lengths = (0, 1, 2, 3, 4, 6, 9, 16)
    matches = [
        [
            -0.5 * strength,
            -0.5 * strength,
            -1.0,
            0.0,
            math.log(length + 0.5) - 0.3,
            math.log(length + 0.5),
        ]
        for strength, length in enumerate(lengths)
    ]
    matches[0] = [0.0] * _NUM_CLASSES
    of_pair = (-1.5, -3.0, -0.5, -2.2, -2.8, -3.2, -4.0)
    of_single = (-0.5, -1.0, 0.0, -0.7, -1.0, -1.0, -1.2)
    rows = [one + other for one in of_pair for other in of_single]
    rows[0] = -0.8  # no row at all says little
    return [*chain.from_iterable(matches * 2), *rows, 2.5, 2.8, 3.0, 3.2, 3.5]


FIRST_WEIGHTS = _first_weights()
assert len(FIRST_WEIGHTS) == _COPIES + len(_COPY_LENGTHS)
