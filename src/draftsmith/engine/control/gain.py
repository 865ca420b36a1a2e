"""What paced rounds have brought, which says whether the next one is worth its start."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Gain"]

_PRIOR, _PRIOR_WEIGHT = 0.5, 4.0
"""Before any round a pace is taken to win, so that it is tried."""
_OWN_WEIGHT = 6.0
"""Rounds of its own after which a sequence counts as much as all the others."""
_FADE, _OWN_FADE = 0.998, 0.95
"""A round."""
_UNPROVEN = 16.0
"""Tokens that are taken to have gained nothing, where gains must be proven."""


@dataclass
class _Sum:
    gained: float = 0.0
    tokens: float = 0.0
    rounds: float = 0.0

    def add(self, gained: float, tokens: int) -> None:
        self.gained += gained
        self.tokens += tokens
        self.rounds += 1

    def fade(self, share: float) -> None:
        self.gained *= share
        self.tokens *= share
        self.rounds *= share


@dataclass
class Gain:
    """Tokens beyond those of plain decoding in the same time, by sequence, the latest most.

    A schedule takes every draft to run its length; a pace ends the doubtful ones, so that rounds
    pay which would not pay with any fixed length.
    """

    _all: _Sum = field(default_factory=_Sum)
    _own: dict[int, _Sum] = field(default_factory=dict)

    def retain(self, ids: Iterable[int]) -> None:
        """Forget sequences that are gone."""
        for gone in self._own.keys() - set(ids):
            del self._own[gone]

    def observe(self, sequence: int, tokens: int, plain_rounds: float) -> None:
        """Tokens of one sequence in one paced round, and the plain rounds that it took."""
        gained = tokens - plain_rounds
        own = self._own.setdefault(sequence, _Sum())
        own.fade(_OWN_FADE)
        own.add(gained, tokens)
        self._all.add(gained, tokens)

    def end_round(self) -> None:
        """Older rounds count less."""
        self._all.fade(_FADE)

    @property
    def is_known(self) -> bool:
        """Whether any round has shown what a draft is worth."""
        return self._all.rounds > 0

    @property
    def saving(self) -> float:
        """Plain rounds that each token has saved, as far as that is proven; never negative."""
        return max(0.0, self._all.gained) / (self._all.tokens + _UNPROVEN)

    def expected(self, sequences: Sequence[int]) -> float:
        """Of one more paced round, all these sequences together."""
        usual = (self._all.gained + _PRIOR * _PRIOR_WEIGHT) / (self._all.rounds + _PRIOR_WEIGHT)
        own = (self._own.get(sequence, _Sum()) for sequence in sequences)
        return sum((one.gained + _OWN_WEIGHT * usual) / (one.rounds + _OWN_WEIGHT) for one in own)
