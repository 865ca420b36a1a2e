"""How likely a guess is right, from what each source says of it: learnt as guesses come true."""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter

__all__ = ["Odds", "chance_of"]

_RATE = 0.5
_CAUTION = 4.0
"""Squared errors that a weight is trusted with from the start: it moves slowly at first."""
_SHIFT_RATE = 0.06
_LEAST, _MOST = 1e-3, 1 - 1e-3


def chance_of(log_odds: float) -> float:
    """The chance that log-odds stand for, never quite 0 or 1."""
    chance = 1 / (1 + math.exp(-log_odds))
    return min(max(chance, _LEAST), _MOST)


_first = itemgetter(0)


class Odds:
    """The log-odds of a guess as a sum of weights, one for each thing that is known of it.

    Weights are learnt online by AdaGrad (Duchi et al. 2011); a sequence has a shift of its own.

    Args:
        weights: To begin with.
        squares: Squared errors that each has learnt from, where it goes on.

    Example:
        >>> odds = Odds([0.0, 1.0])
        >>> round(odds.chance((0, 1)), 2)
        0.73
        >>> for _ in range(100):
        ...     _ = odds.learn((0, 1), False)
        >>> odds.chance((0, 1)) < 0.1
        True
    """

    def __init__(self, weights: Sequence[float], squares: Sequence[float] | None = None) -> None:
        self.weights = list(weights)
        self.squares = [_CAUTION] * len(self.weights) if squares is None else list(squares)

    def chance(self, known: Sequence[int], shift: float = 0.0) -> float:
        """That a guess of which this is known is right.

        Args:
            known: Indices of weights.
            shift: Of the sequence's own.
        """
        return chance_of(self._log_odds(known, shift))

    def ranked(
        self, guesses: Mapping[int, tuple[int, ...]], shift: float
    ) -> list[tuple[float, int, tuple[int, ...]]]:
        """Rank some guesses.

        Args:
            guesses: What is known of each.
            shift: Of the sequence's own.

        Returns:
            Log-odds, guess and what is known of it, the likeliest last; of equals the first is.
        """
        found = [(self._log_odds(known, shift), token, known) for token, known in guesses.items()]
        found.reverse()
        found.sort(key=_first)
        return found

    def learn(self, known: Sequence[int], is_right: bool, shift: float = 0.0) -> float:
        """Learn whether a guess was right.

        Args:
            known: What was known of it.
            is_right: What came.
            shift: Of the sequence's own.

        Returns:
            The sequence's shift from then on.
        """
        error = self.chance(known, shift) - is_right
        squares, weights = self.squares, self.weights
        for index in known:
            squares[index] += error * error
            weights[index] -= _RATE * error / math.sqrt(squares[index])
        return shift - _SHIFT_RATE * error

    def _log_odds(self, known: Sequence[int], shift: float) -> float:
        for index in known:
            shift += self.weights[index]
        return shift
