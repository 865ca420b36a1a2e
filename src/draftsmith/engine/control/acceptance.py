"""What share of drafts is kept, learnt from the checks themselves."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.control.drift import Drift

__all__ = ["Acceptance"]

_PRIOR, _PRIOR_WEIGHT = 0.7, 4.0
"""Before anything was tested a draft is taken to be good, so that it is tried."""
_POSITION_WEIGHT = 12.0
_FADE = 0.998
"""Of what all sequences did, a round."""
_LEAST, _MOST = 0.002, 0.998


@dataclass
class _Asked:
    """How often one sequence's drafter had something to propose, the latest rounds most."""

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
        self._drifts: dict[int, Drift] = {}
        self._asked: dict[int, _Asked] = {}

    @property
    def alpha(self) -> float:
        """Over all sequences and positions."""
        kept, tested = float(self._kept.sum()), float(self._tested.sum())
        return (kept + _PRIOR * _PRIOR_WEIGHT) / (tested + _PRIOR_WEIGHT)

    def retain(self, ids: Iterable[int]) -> None:
        """Forget sequences that are gone."""
        for gone in self._asked.keys() - set(ids):
            del self._drifts[gone], self._asked[gone]

    def observe(self, sequence: int, gamma: int, record: RoundRecord, *, is_proposed: bool) -> None:
        """Learn from one round of one sequence that asked for `gamma` drafts."""
        if gamma == 0:
            return
        asked = self._asked.setdefault(sequence, _Asked())
        asked.asked = 0.9 * asked.asked + 1
        asked.proposed = 0.9 * asked.proposed + is_proposed
        drift = self._drifts.setdefault(sequence, Drift())
        for position in range(record.num_tested):
            drift.observe(position < record.num_accepted, float(self._rates[position]))
        self._kept[: record.num_accepted] += 1
        self._tested[: record.num_tested] += 1
        # What was hardly tested takes the average.
        kept = self._kept + _POSITION_WEIGHT * self.alpha
        self._rates = np.clip(kept / (self._tested + _POSITION_WEIGHT), _LEAST, _MOST)

    def end_round(self) -> None:
        """Older rounds count less."""
        self._kept *= _FADE
        self._tested *= _FADE

    def availability(self, sequence: int) -> float:
        """Share of the last rounds in which the drafter proposed something, when asked."""
        asked = self._asked.get(sequence)
        return 1.0 if asked is None else asked.proposed / asked.asked

    def chances(self, sequence: int, depth: int) -> NDArray[np.float64]:
        """Entry j is the chance that drafts 0 to j are all kept; `[depth]`."""
        drift = self._drifts.get(sequence) or Drift()
        rates = self._rates[:depth]
        odds = rates / (1 - rates) * drift.factor
        return np.cumprod(odds / (1 + odds), dtype=np.float64)
