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

    Lines of a rest wait in `rested`: a plain round costs no more than to put one there.
    """

    def __init__(self) -> None:
        self.entered = Ledger()
        """All rounds but those of the rest in hand."""
        self.rested: list[tuple[Ledger, float]] = []
        """The plain rounds of the rest in hand, and the time that prompts took in each."""

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        return sum((line for line, _ in self.rested), self.entered)

    @property
    def num_rounds(self) -> int:
        """Entered rounds."""
        return self.entered.num_rounds

    def enter(self, line: Ledger) -> None:
        """Add one round."""
        self.entered += line

    def end_rest(self) -> Rest:
        """Enter the rest in hand, which may be of no rounds."""
        number = len(self.rested)
        if not number:
            return Rest()
        lines, read_s = zip(*self.rested, strict=True)
        rest = sum(lines, Ledger())
        self.entered += rest
        self.rested.clear()
        plain_s = rest.spent_s - rest.own_s - sum(read_s)
        return Rest(number, plain_s / number, rest.own_s / number)
