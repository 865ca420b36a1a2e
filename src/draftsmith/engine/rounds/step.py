"""One round over a batch: draft, check, decide."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from draftsmith.drafters.contract import DraftState
from draftsmith.engine import clock
from draftsmith.engine.control.contract import NO_TREES, Choice, Forced
from draftsmith.engine.rounds.forced import propose_along
from draftsmith.engine.rounds.lessons import teach
from draftsmith.engine.rounds.outcomes import Outcome
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import check_drafts
from draftsmith.models.follower import Follower

__all__ = ["Decided", "run_round"]


class Decided(NamedTuple):
    """A round that is decided, and not committed."""

    outcomes: Sequence[Outcome]
    choice: Choice
    confidences: Sequence[Sequence[float]]
    """How sure the drafter was of each token."""
    draft_s: float
    """What drafting took, as far as it was measured by itself."""
    draft_share: float = 0.0
    """The part of the other time that drafting took."""
    caught_up_s: float = 0.0
    """What a draft's catching up took, where it was measured by itself."""
    captured_s: float = 0.0
    """Time that went to capturing."""
    forced: Sequence[Forced] = ()
    """Of each sequence, what of its draft no drafter guessed; empty where that is nothing."""
    tree_tests: Mapping[int, Sequence[float]] = NO_TREES
    """By place, of each draft that was a tree, the confidences of what was held against the
    target's tokens: first the kept ones."""


def run_round(
    target: Follower,
    drafter: DraftState | None,
    name: str,
    turns: Sequence[Turn],
    choice: Choice,
) -> Decided:
    """Draft, check, decide, for every sequence of a batch.

    Args:
        target: What checks.
        drafter: What guesses, if anything does.
        name: The drafter's, for errors.
        turns: The batch.
        choice: Whose gammas the turns have, and who ends drafts early.

    Raises:
        DraftError: If the drafter proposes what fits no batch.
    """
    start = clock.perf_counter()
    states = target.take_states if target.hands_out else None
    proposal = propose_along(target.model, drafter, name, turns, choice.pace, states)
    # Every drafted token was read on the host by now, or the draft needed no device.
    draft_s = clock.perf_counter() - start
    num_top_ids = 0 if drafter is None else drafter.num_top_ids
    vocab_size = target.model.traits.vocab_size
    outcomes = check_drafts(target, turns, proposal, vocab_size, num_top_ids)
    if drafter is not None and num_top_ids:
        # The logits are there: the sync is over.
        start = clock.perf_counter()
        teach(drafter, turns, outcomes)
        draft_s += clock.perf_counter() - start
    confidences = [turn.confidences for turn in turns]
    forced = [turn.forced for turn in turns]
    tests = NO_TREES if proposal.parents is None else _tree_tests(turns, outcomes)
    return Decided(outcomes, choice, confidences, draft_s, forced=forced, tree_tests=tests)


def _tree_tests(
    turns: Sequence[Turn], outcomes: Sequence[Outcome]
) -> Mapping[int, Sequence[float]]:
    return {
        place: [turn.confidences[node] for node in outcome.kept.tests] if turn.confidences else []
        for place, (turn, outcome) in enumerate(zip(turns, outcomes, strict=True))
        if outcome.kept is not None
    }
