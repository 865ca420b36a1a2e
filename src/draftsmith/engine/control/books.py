"""The ledger as it grows: rounds are entered, those of a plain rest all at once."""

from typing import NamedTuple

from draftsmith.engine.control.contract import Ledger

__all__ = ["Books", "Rest"]


class Rest(NamedTuple):
    """Plain rounds in a row: how many, and the mean of each."""

    num_rounds: int = 0
    round_s: float = 0.0
    """What plain decoding takes, without reading prompts."""
    own_s: float = 0.0
    """What the controller takes."""


class Books:
    """What was spent, and what plain decoding would have taken.

    Lines of a rest wait, so that a plain round costs no more than to put one there.
    """

    def __init__(self) -> None:
        self.entered = Ledger()
        """All rounds but those of the rest in hand."""
        self._rested: list[Ledger] = []
        self._read_s = 0.0
        """Reading prompts, in the rest in hand."""

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        return sum(self._rested, self.entered)

    @property
    def num_rounds(self) -> int:
        """Entered rounds."""
        return self.entered.num_rounds

    def enter(self, line: Ledger) -> None:
        """Add one round."""
        self.entered += line

    def rest(self, line: Ledger, read_s: float = 0.0) -> None:
        """Add a plain round that belongs to a rest, with the time that prompts took in it."""
        self._rested.append(line)
        self._read_s += read_s

    def end_rest(self) -> Rest:
        """Enter the rest in hand, which may be of no rounds."""
        number = len(self._rested)
        if not number:
            return Rest()
        sums = sum(self._rested, Ledger())
        plain_s = sums.spent_s - sums.own_s - self._read_s
        self.entered += sums
        self._rested.clear()
        self._read_s = 0.0
        return Rest(number, plain_s / number, sums.own_s / number)
