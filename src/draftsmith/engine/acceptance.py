"""What share of drafts is kept, learnt from the checks themselves."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draftsmith.core.params import MAX_GAMMA
from draftsmith.core.statistics import RoundRecord

__all__ = ["Acceptance"]

_PRIOR, _PRIOR_WEIGHT = 0.7, 4.0
"""Before anything was tested a draft is taken to be good, so that it is tried."""
_OWN_WEIGHT = 6.0
"""Tests of its own after which a sequence counts as much as all the others."""
_POSITION_WEIGHT = 12.0
_FADE = 0.998
"""Of what all sequences did, a round."""
_OWN_FADE = 0.96
"""Of what a sequence did, a tested token: text changes its kind within a paragraph."""
_LEAST, _MOST = 0.002, 0.998


@dataclass
class _Own:
    """What one sequence's drafts did."""

    kept: float = 0.0
    expected: float = 0.0
    """The chances that its tested drafts had by their positions alone, summed as `tested` is."""
    tested: float = 0.0
    proposed: float = 1.0
    asked: float = 1.0


class Acceptance:
    """Chances of drafts, by sequence and position, the latest rounds counting most.

    All sequences together say how chances run over the positions; each sequence's own tests
    shift them.
    """

    def __init__(self) -> None:
        self._kept = np.zeros(MAX_GAMMA)
        self._tested = np.zeros(MAX_GAMMA)
        self._rates = np.full(MAX_GAMMA, _PRIOR)
        self._own: dict[int, _Own] = {}

    @property
    def alpha(self) -> float:
        """Over all sequences and positions."""
        kept, tested = float(self._kept.sum()), float(self._tested.sum())
        return (kept + _PRIOR * _PRIOR_WEIGHT) / (tested + _PRIOR_WEIGHT)

    def retain(self, ids: Iterable[int]) -> None:
        """Forget sequences that are gone."""
        for gone in self._own.keys() - set(ids):
            del self._own[gone]

    def observe(self, sequence: int, gamma: int, record: RoundRecord) -> None:
        """Learn from one round of one sequence that asked for `gamma` drafts."""
        if gamma == 0:
            return
        own = self._own.setdefault(sequence, _Own())
        own.asked = 0.9 * own.asked + 1
        own.proposed = 0.9 * own.proposed + (record.num_drafted > 0)
        for position in range(record.num_tested):
            own.tested = _OWN_FADE * own.tested + 1
            own.kept = _OWN_FADE * own.kept + (position < record.num_accepted)
            own.expected = _OWN_FADE * own.expected + float(self._rates[position])
        self._kept *= _FADE
        self._tested *= _FADE
        self._kept[: record.num_accepted] += 1
        self._tested[: record.num_tested] += 1
        # What was hardly tested takes the average.
        kept = self._kept + _POSITION_WEIGHT * self.alpha
        self._rates = np.clip(kept / (self._tested + _POSITION_WEIGHT), _LEAST, _MOST)

    def availability(self, sequence: int) -> float:
        """Share of the last rounds in which the drafter proposed something, when asked."""
        own = self._own.get(sequence)
        return 1.0 if own is None else own.proposed / own.asked

    def chances(self, sequence: int, depth: int) -> NDArray[np.float64]:
        """Entry j is the chance that drafts 0 to j are all kept; `[depth]`."""
        own = self._own.get(sequence) or _Own()
        usual = own.expected / own.tested if own.tested else self.alpha
        alpha = (own.kept + _OWN_WEIGHT * usual) / (own.tested + _OWN_WEIGHT)
        rates = self._rates[:depth]
        odds = rates / (1 - rates) * (_odds(alpha) / _odds(usual))
        return np.cumprod(odds / (1 + odds), dtype=np.float64)


def _odds(rate: float) -> float:
    bounded = min(max(rate, _LEAST), _MOST)
    return bounded / (1 - bounded)
