"""The ledger of a run: time spent, beside the time that plain decoding would have taken."""

from dataclasses import dataclass, replace

__all__ = ["Ledger"]


@dataclass(frozen=True)
class Ledger:
    """Seconds spent on tokens, and seconds that plain decoding would have spent on the same.

    The second is an estimate: rounds of plain decoding are timed, at the start and now and then,
    and checks of known size tell how the machine's speed has moved since. Ledgers add.
    """

    spent_s: float = 0.0
    """Time of all rounds, prompts included."""
    plain_s: float = 0.0
    """Estimated time of plain decoding for the same tokens, prompts included."""
    draft_s: float = 0.0
    """Of `spent_s`, drafting."""
    num_rounds: int = 0
    num_plain_rounds: int = 0
    """Rounds in which nothing was asked of the drafter."""

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(
            self.spent_s + other.spent_s,
            self.plain_s + other.plain_s,
            self.draft_s + other.draft_s,
            self.num_rounds + other.num_rounds,
            self.num_plain_rounds + other.num_plain_rounds,
        )

    def share(self, num_sequences: int) -> "Ledger":
        """One sequence's part of a round that several had together."""
        part = 1 / num_sequences
        return replace(
            self,
            spent_s=part * self.spent_s,
            plain_s=part * self.plain_s,
            draft_s=part * self.draft_s,
        )

    @property
    def debt_s(self) -> float:
        """Time lost to speculation so far; negative where it has won."""
        return self.spent_s - self.plain_s

    @property
    def speedup(self) -> float | None:
        """Plain decoding's estimated time over the time spent; None before the first round."""
        return self.plain_s / self.spent_s if self.spent_s > 0 else None

    def to_dict(self) -> dict[str, float | int | None]:
        """By name, ready for JSON."""
        return {
            "spent_s": self.spent_s,
            "plain_s": self.plain_s,
            "draft_s": self.draft_s,
            "debt_s": self.debt_s,
            "speedup": self.speedup,
            "num_rounds": self.num_rounds,
            "num_plain_rounds": self.num_plain_rounds,
        }
