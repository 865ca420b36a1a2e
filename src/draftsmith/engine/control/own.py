"""The draft lengths that single sequences ask for, in the place of the controller's."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from draftsmith.drafters.contract import Drafter
from draftsmith.engine.control.contract import Choice, Pace, Sample
from draftsmith.engine.control.fixed import at_most

__all__ = ["Holder", "OwnDraft", "common_gammas", "with_own"]


class OwnDraft(NamedTuple):
    """How one sequence is drafted for; the text's law does not depend on it."""

    gamma: int | None = None
    """At most so many tokens a round; None is the controller's choice."""
    drafter: Drafter | None = None
    """Who drafts; None is the engine's drafter."""


@runtime_checkable
class Holder(Sample, Protocol):
    """A sequence that may be drafted for in its own way."""

    own_draft: OwnDraft | None


def with_own(choice: Choice, sequences: Sequence[Holder]) -> Choice:
    """A choice with the sequences' own lengths in it.

    Args:
        choice: The controller's.
        sequences: Of the batch, in order.
    """
    own = [None if one.own_draft is None else one.own_draft.gamma for one in sequences]
    gammas = [
        chosen if asked is None else at_most(asked, one)
        for chosen, asked, one in zip(choice.gammas, own, sequences, strict=True)
    ]
    if choice.pace is None:
        return Choice(gammas)
    fixed = frozenset(row for row, asked in enumerate(own) if asked is not None)
    return Choice(gammas, _OwnPace(choice.pace, fixed))


def common_gammas(choice: Choice, sequences: Sequence[Holder]) -> list[int]:
    """What a choice asks of the engine's own drafter."""
    return [
        0 if one.own_draft is not None and one.own_draft.drafter is not None else gamma
        for gamma, one in zip(choice.gammas, sequences, strict=True)
    ]


class _OwnPace:
    """A pace that does not end drafts whose length was asked for."""

    def __init__(self, pace: Pace, fixed: frozenset[int]) -> None:
        self._pace, self._fixed = pace, fixed

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        """Those with a length of their own, and those that the pace lets go on."""
        others = [row for row in rows if row not in self._fixed]
        going = {*self._pace.wanting(drafts, others)} if others else set[int]()
        return [row for row in rows if row in self._fixed or row in going]

    def least_confidence(self, row: int) -> float:
        """None where the length was asked for."""
        return 0.0 if row in self._fixed else self._pace.least_confidence(row)

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        """How much of each deterministic draft to check."""
        found = self._pace.lengths(drafts)
        return [
            len(draft) if row in self._fixed else length
            for row, (draft, length) in enumerate(zip(drafts, found, strict=True))
        ]

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Which tokens of each deterministic tree to check."""
        found = self._pace.nodes(drafts, parents)
        return [
            list(range(len(draft))) if row in self._fixed else nodes
            for row, (draft, nodes) in enumerate(zip(drafts, found, strict=True))
        ]
