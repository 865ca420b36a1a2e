"""How many tokens each round drafts: who decides, what they hear of it, and the ledger."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from draftsmith.core.statistics import RoundRecord

__all__ = [
    "NO_FORCED",
    "NO_TREES",
    "Choice",
    "Controller",
    "Forced",
    "Ledger",
    "Pace",
    "RoundReport",
    "Sample",
    "without",
]


@runtime_checkable
class Sample(Protocol):
    """What a controller sees of a sequence."""

    @property
    def id(self) -> int:
        """Its number, which no other sequence has."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """All that is committed."""
        ...

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        ...


@runtime_checkable
class Pace(Protocol):
    """Ends drafts early.

    Whether a token is drafted, and then checked, may depend on all that was drawn before it and
    on the laws so far, never on the token itself: so every verifier stays exact.
    """

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        """Those of the sequences `rows` that should draw another token, in order.

        Args:
            drafts: The confidences of the drafted tokens so far, for every sequence of the batch.
            rows: Sequences that could.
        """
        ...

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        """How much of each deterministic draft to check."""
        ...

    def least_confidence(self, row: int) -> float:
        """Below which no token of a sequence's deterministic draft is checked; 0 rules none out."""
        ...

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Which tokens of each deterministic tree to check, each behind its parent.

        Args:
            drafts: The confidences of the tokens, for every sequence of the batch.
            parents: The index of the token that each follows, -1 for none.
        """
        ...


class Choice(NamedTuple):
    """How much a round drafts."""

    gammas: list[int]
    """At most, for each sequence."""
    pace: Pace | None = None
    """Who ends drafts earlier."""


class Forced(NamedTuple):
    """Tokens of a draft that a grammar forces, so that no drafter guesses them."""

    before: int = 0
    """At its beginning."""
    behind: int = 0
    """At its end."""


NO_FORCED = Forced()
"""Of a draft that is all guessed."""


def without(record: RoundRecord, forced: Forced) -> RoundRecord:
    """What a round did beside its forced tokens.

    Example:
        >>> from draftsmith.core.statistics import RoundRecord
        >>> without(RoundRecord(6, 6, 6, 7), Forced(before=3, behind=1))
        RoundRecord(num_drafted=2, num_tested=2, num_accepted=2, num_committed=3)
    """
    guessed = record.num_drafted - sum(forced)
    tested, accepted = (
        min(max(0, count - forced.before), guessed)
        for count in (record.num_tested, record.num_accepted)
    )
    num_free = record.num_accepted - accepted
    return RoundRecord(guessed, tested, accepted, max(1, record.num_committed - num_free))


NO_TREES: Mapping[int, Sequence[float]] = MappingProxyType({})
"""Of a round whose drafts were chains."""


class RoundReport(NamedTuple):
    """What one round did and took."""

    sequences: Sequence[Sample]
    gammas: Sequence[int]
    """Tokens asked for."""
    records: Sequence[RoundRecord]
    confidences: Sequence[Sequence[float]]
    """The drafter's, of the tokens it proposed; empty where it tells none."""
    is_first: bool
    """Whether a prompt was read in it."""
    draft_s: float
    """Drafting; the pace's part too."""
    total_s: float
    """All of it, the controller's time included."""
    own_s: float = 0.0
    """The controller's: this round's choice, and hearing of the round before."""
    read_s: float = 0.0
    """The target's reading of prompts before the round, of its own sequences or of others."""
    forced: Sequence[Forced] = ()
    """Of each sequence, what of its draft no drafter guessed; empty where that is nothing."""
    caught_up_s: float = 0.0
    """Of `draft_s`, the drafter's reading of what it lacked, where that was measured by itself."""
    tree_tests: Mapping[int, Sequence[float]] = NO_TREES
    """By place in the batch, of each draft that was a tree, the confidences of the tokens that were
    held against the target's: first the kept ones."""

    def tests(self, place: int) -> Sequence[float]:
        """The confidences of a draft's tokens that were held against the target's, kept first."""
        found = self.tree_tests.get(place)
        return self.confidences[place][: self.guesses[place].num_tested] if found is None else found

    @property
    def has_forced(self) -> bool:
        """Whether a grammar forced tokens in it: even without a drafter, it is no plain round."""
        return any(map(any, self.forced))

    @property
    def guesses(self) -> Sequence[RoundRecord]:
        """The records of what was guessed, and of the token behind it."""
        if not self.has_forced:
            return self.records
        return [without(*pair) for pair in zip(self.records, self.forced, strict=True)]

    @property
    def num_drafted(self) -> int:
        """Drafted tokens that were checked."""
        return sum(record.num_drafted for record in self.records)

    @property
    def num_steps(self) -> int:
        """Of the longest draft as it was proposed; asking takes one, whatever comes of it."""
        drafted = max(record.num_drafted for record in self.guesses)
        return max(1, drafted, *map(len, self.confidences))


class Ledger(NamedTuple):
    """Seconds spent on tokens, and seconds that plain decoding would have spent on the same.

    The second is an estimate: rounds of plain decoding are timed, at the start and now and then,
    and checks of known size tell how the machine's speed has moved since. What the controller takes
    is spent in plain rounds too. Ledgers add.
    """

    spent_s: float = 0.0
    """Time of all rounds, prompts included."""
    plain_s: float = 0.0
    """Estimated time of plain decoding for the same tokens, prompts included."""
    draft_s: float = 0.0
    """Of `spent_s`, drafting."""
    own_s: float = 0.0
    """Of `spent_s`, choosing how much to draft, and learning."""
    num_rounds: int = 0
    num_plain_rounds: int = 0
    """Rounds in which nothing was asked of the drafter."""

    # Not a tuple's: a named tuple is four times as quick to make as a frozen dataclass.
    def __add__(self, other: "Ledger") -> "Ledger":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of both."""
        return Ledger(
            self.spent_s + other.spent_s,
            self.plain_s + other.plain_s,
            self.draft_s + other.draft_s,
            self.own_s + other.own_s,
            self.num_rounds + other.num_rounds,
            self.num_plain_rounds + other.num_plain_rounds,
        )

    def __sub__(self, other: "Ledger") -> "Ledger":
        """What came since the other."""
        return Ledger(
            self.spent_s - other.spent_s,
            self.plain_s - other.plain_s,
            self.draft_s - other.draft_s,
            self.own_s - other.own_s,
            self.num_rounds - other.num_rounds,
            self.num_plain_rounds - other.num_plain_rounds,
        )

    def share(self, num_sequences: int) -> "Ledger":
        """One sequence's part of rounds that several had together."""
        if num_sequences == 1:
            return self
        part = 1 / num_sequences
        return self._replace(
            spent_s=part * self.spent_s,
            plain_s=part * self.plain_s,
            draft_s=part * self.draft_s,
            own_s=part * self.own_s,
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
            "own_s": self.own_s,
            "debt_s": self.debt_s,
            "speedup": self.speedup,
            "num_rounds": self.num_rounds,
            "num_plain_rounds": self.num_plain_rounds,
        }


@runtime_checkable
class Controller(Protocol):
    """Chooses each round's draft lengths, and hears what came of them.

    A choice sees only what was committed in earlier rounds, and its pace what was drawn before
    the token in question. So whether a token is checked never depends on that token, and every
    verifier stays exact.
    """

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """Tokens to draft for each sequence, at most its room less one, and who ends earlier."""
        ...

    def observe(self, report: RoundReport) -> None:
        """Learn from a round, and add it to the ledger, if one is kept."""
        ...

    @property
    def ledger(self) -> Ledger | None:
        """Of all rounds that it has heard of; None where none is kept."""
        ...
