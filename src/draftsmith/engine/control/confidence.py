"""What a drafter's own certainty is worth: chances learnt from the checks of its drafts."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from draftsmith.engine.control.drift import Drift, odds

__all__ = ["Confidence"]

_STEP = 0.5
_LOWEST, _HIGHEST = -2.0, 8.0
"""Confidences are told apart by their log-odds, in steps."""
_PRIOR = np.array([0.0, 1.0])
"""Before anything was tested a confidence is taken at its word: log-odds = 0 + 1 x log-odds."""
_PRIOR_WEIGHT = np.array([1.0, 4.0])
_FADE = 0.998
"""Of what was tested, a round."""
_USUAL, _USUAL_WEIGHT = 0.7, 4.0
_BOUND = 6.2
"""Chances stay between 0.002 and 0.998."""


class Confidence:
    """Chances of drafted tokens from the confidence that was reported with each.

    A line from the log-odds of the confidence to those of being kept, fitted to all tests, the
    latest counting most (logistic regression, a Newton step a round); each sequence shifts it.
    """

    def __init__(self) -> None:
        self._levels = np.arange(_LOWEST, _HIGHEST + _STEP / 2, _STEP)
        self._kept = np.zeros(len(self._levels))
        self._tested = np.zeros(len(self._levels))
        self._line = _PRIOR.copy()
        self._drifts: dict[int, Drift] = {}
        self.is_known = False
        """Whether the drafter was ever heard to tell any."""

    def retain(self, ids: Iterable[int]) -> None:
        """Forget sequences that are gone."""
        for gone in self._drifts.keys() - set(ids):
            del self._drifts[gone]

    def observe(self, sequence: int, confidences: Sequence[float], num_accepted: int) -> None:
        """Learn from the tested tokens of one draft, of which the first so many were kept."""
        if not confidences:
            return
        self.is_known = True
        drift = self._drifts.setdefault(sequence, Drift())
        places = self._places(confidences)
        expected = _chance(self._log_odds()[places])
        for number, place in enumerate(places):
            is_kept = number < num_accepted
            drift.observe(is_kept, float(expected[number]))
            self._tested[place] += 1
            self._kept[place] += is_kept

    def end_round(self) -> None:
        """Fit the line to what was observed; older rounds count less."""
        self._refit()
        self._kept *= _FADE
        self._tested *= _FADE

    def chances(self, sequence: int, confidences: Sequence[float]) -> NDArray[np.float64]:
        """Entry j is the chance that tokens 0 to j are all kept; as many as confidences."""
        log_odds = self._log_odds()[self._places(confidences)] + self._shift(sequence)
        return np.cumprod(_chance(log_odds), dtype=np.float64)

    def usual(self, sequence: int) -> float:
        """The chance of a token whose confidence is not known yet."""
        kept, tested = float(self._kept.sum()), float(self._tested.sum())
        alpha = (kept + _USUAL * _USUAL_WEIGHT) / (tested + _USUAL_WEIGHT)
        return float(_chance(np.array([math.log(odds(alpha)) + self._shift(sequence)]))[0])

    def _shift(self, sequence: int) -> float:
        drift = self._drifts.get(sequence)
        return 0.0 if drift is None else math.log(drift.factor)

    def _places(self, confidences: Sequence[float]) -> NDArray[np.int64]:
        sure = np.clip(np.asarray(confidences, dtype=np.float64), 1e-4, 1 - 1e-4)
        places = np.rint((np.log(sure / (1 - sure)) - _LOWEST) / _STEP)
        return np.clip(places, 0, len(self._levels) - 1).astype(np.int64)

    def _log_odds(self) -> NDArray[np.float64]:
        return self._line[0] + self._line[1] * self._levels

    def _refit(self) -> None:
        chance = _chance(self._log_odds())
        miss = self._kept - self._tested * chance
        weight = self._tested * chance * (1 - chance)
        powers = np.stack([np.ones_like(self._levels), self._levels])
        slope = powers @ miss - _PRIOR_WEIGHT * (self._line - _PRIOR)
        bend = (powers * weight) @ powers.T + np.diag(_PRIOR_WEIGHT)
        self._line = self._line + np.clip(np.linalg.solve(bend, slope), -1.0, 1.0)


def _chance(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded: NDArray[np.float64] = np.clip(log_odds, -_BOUND, _BOUND)
    return 1 / (1 + np.exp(-bounded))
