"""Drafts along a grammar: forced tokens cost nothing, refused ones are cut off.

What a grammar forces is drafted before anybody guesses: a run of such tokens goes before what the
drafter proposes, which goes on from there, and another one behind it. They are certain, as all that
is drafted without a draw. Where the grammar leaves one token only, the target's law is a point mass
too, and every verifier keeps it; where it leaves one way to spell on, and several to cut it into
tokens, they are checked like any others.

What the grammar refuses is cut off a deterministic draft. One that was drawn is left as it is, for
whether a token is checked may not depend on it. It comes from masked laws, and holds such a token
only where a drafter has a law of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.drafters.contract import DraftState
from draftsmith.drafters.draft import Draft
from draftsmith.engine.control.contract import Forced, Pace
from draftsmith.engine.rounds.drafting import Proposal, States, propose
from draftsmith.engine.rounds.turn import Turn
from draftsmith.models.contract import LanguageModel

__all__ = ["propose_along"]

Tokens = list[int]


def propose_along(
    target: LanguageModel,
    drafter: DraftState | None,
    name: str,
    turns: Sequence[Turn],
    pace: Pace | None = None,
    states: States | None = None,
) -> Proposal:
    """As `propose`, with the forced tokens of each sequence that follows a grammar.

    Args:
        target: Whose vocabulary and device it is for.
        drafter: What guesses, if anything does.
        name: The drafter's, for errors.
        turns: The batch.
        pace: Who ends drafts early.
        states: Asked for the target's residual streams.

    Raises:
        DraftError: If what is proposed fits no batch.
    """
    if all(turn.constraint is None for turn in turns):
        return propose(target, drafter, name, turns, pace, states)
    befores = [_forced(turn, []) for turn in turns]
    behind = [_behind(*pair) for pair in zip(turns, befores, strict=True)]
    proposal = propose(target, drafter, name, behind, pace, states)
    is_drawn = proposal.draft.probs is not None
    drafts: list[Tokens] = []
    for turn, one, before, guessed in zip(turns, behind, befores, proposal.tokens, strict=True):
        turn.fault, turn.confidences = one.fault, one.confidences
        tokens = [*before, *guessed]
        if turn.constraint is not None and not turn.fault:
            if not is_drawn:
                tokens = tokens[: turn.constraint.num_allowed(turn.output, tokens)]
            following = _forced(turn, tokens)
            tokens += following
            turn.forced = Forced(len(before), len(following))
        drafts.append([] if turn.fault else tokens)
    draft = Draft.certain(drafts, target.device)
    if proposal.draft.probs is not None:
        places = [len(before) for before in befores]
        probs = _with_point_masses(proposal, places, draft)
        draft = Draft(draft.tokens, draft.num_drafted, probs)
    return Proposal(draft, drafts)


def _forced(turn: Turn, drafted: Tokens) -> Tokens:
    """The forced tokens behind a draft; the last token of the text is never drafted."""
    return turn.forced_after(drafted, min(MAX_GAMMA, turn.room - 1) - len(drafted))


def _behind(turn: Turn, before: Tokens) -> Turn:
    """The turn as the drafter sees it: the forced tokens are taken as kept."""
    if not before:
        return turn
    view = turn.view
    gamma = max(0, min(view.gamma, turn.room - 1 - len(before)))
    moved = view._replace(tokens=[*view.tokens, *before], gamma=gamma)
    prefix = [*turn.prefix, *before]
    return replace(turn, view=moved, prefix=prefix, drawn=[], laws=[], confidences=[])


def _with_point_masses(
    proposal: Proposal, places: Sequence[int], draft: Draft
) -> Float[Tensor, "batch gamma vocab"]:
    """The laws of the whole drafts: the drafter's own, and point masses around them."""
    given = proposal.draft.probs
    assert given is not None
    probs = torch.zeros(*draft.tokens.shape, given.shape[-1], device=given.device)
    is_token = (draft.tokens >= 0).to(probs.dtype)
    probs.scatter_(-1, draft.tokens.clamp(min=0).unsqueeze(-1), is_token.unsqueeze(-1))
    for row, (start, guessed) in enumerate(zip(places, proposal.tokens, strict=True)):
        probs[row, start : start + len(guessed)] = given[row, : len(guessed)]
    return probs
