"""How many tokens each round drafts: who decides, and what they hear of it."""

from collections.abc import Sequence as Many
from typing import NamedTuple, Protocol, runtime_checkable

from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.ledger import Ledger
from draftsmith.engine.pacing import Choice
from draftsmith.engine.sequence import Sequence

__all__ = ["Controller", "FixedGamma", "RoundReport", "at_most"]


class RoundReport(NamedTuple):
    """What one round did and took."""

    sequences: Many[Sequence]
    gammas: Many[int]
    """Tokens asked for."""
    records: Many[RoundRecord]
    confidences: Many[Many[float]]
    """The drafter's, of the tokens it proposed; empty where it tells none."""
    is_first: bool
    """Whether a prompt was read in it."""
    draft_s: float
    total_s: float


@runtime_checkable
class Controller(Protocol):
    """Chooses each round's draft lengths, and hears what came of them.

    A choice sees only what was committed in earlier rounds, and its pace what was drawn before
    the token in question. So whether a token is checked never depends on that token, and every
    verifier stays exact.
    """

    def choose(self, sequences: Many[Sequence]) -> Choice:
        """Tokens to draft for each sequence, at most its room less one, and who ends earlier."""
        ...

    def observe(self, report: RoundReport) -> Ledger | None:
        """Learn from a round; its line in the ledger, if one is kept."""
        ...


class FixedGamma:
    """The same number every round."""

    def __init__(self, gamma: int) -> None:
        self.gamma = gamma

    def choose(self, sequences: Many[Sequence]) -> Choice:
        """Gamma, or what room is left."""
        return Choice([at_most(self.gamma, sequence) for sequence in sequences])

    def observe(self, report: RoundReport) -> Ledger | None:
        """Nothing is learnt."""
        return None


def at_most(gamma: int, sequence: Sequence) -> int:
    """Gamma, or what room is left: the last token of a text is never drafted."""
    return max(0, min(gamma, sequence.room - 1))
