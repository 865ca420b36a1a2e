"""One round over a batch: draft, check, decide."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from draftsmith.drafters.contract import DraftState
from draftsmith.engine.control.contract import Pace
from draftsmith.engine.rounds.drafting import propose
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import Outcome, check_drafts
from draftsmith.models.follower import Follower

__all__ = ["Round", "run_round"]


class Round(NamedTuple):
    """The verdicts on a batch, and what drafting took."""

    outcomes: list[Outcome]
    draft_s: float


def run_round(
    target: Follower,
    drafter: DraftState | None,
    name: str,
    turns: Sequence[Turn],
    pace: Pace | None = None,
) -> Round:
    """Draft, check, decide, for every sequence of a batch.

    Args:
        target: What checks.
        drafter: What guesses, if anything does.
        name: The drafter's, for errors.
        turns: The batch.
        pace: Who ends drafts early.

    Raises:
        DraftError: If the drafter proposes what fits no batch.
    """
    start = time.perf_counter()
    proposal = propose(target.model, drafter, name, turns, pace)
    # Every drafted token was read on the host by now, or the draft needed no device.
    draft_s = time.perf_counter() - start
    return Round(check_drafts(target, turns, proposal, target.model.traits.vocab_size), draft_s)
