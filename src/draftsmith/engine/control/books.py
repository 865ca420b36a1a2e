"""The ledger as it grows: rounds are entered, those of a plain rest all at once."""

from draftsmith.engine.control.contract import Ledger

__all__ = ["Books"]


class Books:
    """What was spent, and what plain decoding would have taken.

    Lines of a rest wait in `rested`, so that a plain round costs no more than to put one there.
    """

    def __init__(self) -> None:
        self.entered = Ledger()
        """All rounds but those of the rest in hand."""
        self.rested: list[Ledger] = []

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        return sum(self.rested, self.entered)

    @property
    def num_rounds(self) -> int:
        """Entered rounds."""
        return self.entered.num_rounds

    def enter(self, line: Ledger) -> None:
        """Add one round."""
        self.entered += line

    def end_rest(self) -> Ledger:
        """Enter the rest in hand; its sum, which may be of no rounds."""
        rest = sum(self.rested, Ledger())
        if rest.num_rounds:
            self.entered += rest
            self.rested.clear()
        return rest
