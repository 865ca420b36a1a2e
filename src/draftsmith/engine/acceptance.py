"""What share of drafts is kept, learnt from the checks themselves."""

import math
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
    tested: float = 0.0
    proposed: float = 1.0
    asked: float = 1.0


class Acceptance:
    """Chances of drafts, by sequence and position, the latest rounds counting most."""

    def __init__(self) -> None:
        self._kept = np.zeros(MAX_GAMMA)
        self._tested = np.zeros(MAX_GAMMA)
        self._shape = np.zeros(MAX_GAMMA)
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
        self._kept *= _FADE
        self._tested *= _FADE
        self._kept[: record.num_accepted] += 1
        self._tested[: record.num_tested] += 1
        alpha = self.alpha
        rates = (self._kept + _POSITION_WEIGHT * alpha) / (self._tested + _POSITION_WEIGHT)
        self._shape = _logit(rates) - _logit(np.array(alpha))

    def availability(self, sequence: int) -> float:
        """Share of the last rounds in which the drafter proposed something, when asked."""
        own = self._own.get(sequence)
        return 1.0 if own is None else own.proposed / own.asked

    def chances(self, sequence: int, depth: int) -> NDArray[np.float64]:
        """Entry j is the chance that drafts 0 to j are all kept; `[depth]`."""
        own = self._own.get(sequence, _Own())
        alpha = (own.kept + _OWN_WEIGHT * self.alpha) / (own.tested + _OWN_WEIGHT)
        logits = math.log(alpha / (1 - alpha)) if 0 < alpha < 1 else math.copysign(9, alpha - 0.5)
        rates = 1 / (1 + np.exp(-(logits + self._shape[:depth])))
        return np.cumprod(np.clip(rates, _LEAST, _MOST), dtype=np.float64)


def _logit(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(rates, _LEAST, _MOST)
    return np.log(bounded / (1 - bounded))
