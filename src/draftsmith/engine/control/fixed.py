"""The same number of drafted tokens every round."""

from collections.abc import Sequence

from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample

__all__ = ["FixedGamma", "at_most"]


class FixedGamma:
    """The same number every round."""

    def __init__(self, gamma: int) -> None:
        self.gamma = gamma

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """Gamma, or what room is left."""
        return Choice([at_most(self.gamma, sequence) for sequence in sequences])

    def observe(self, report: RoundReport) -> None:
        """Nothing is learnt."""

    @property
    def ledger(self) -> Ledger | None:
        """None is kept."""
        return None


def at_most(gamma: int, sequence: Sample) -> int:
    """Gamma, or what room is left: the last token of a text is never drafted."""
    return max(0, min(gamma, sequence.room - 1))
