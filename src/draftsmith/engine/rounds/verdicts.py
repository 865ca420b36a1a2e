"""The verdicts on a batch: which drafts are kept, and the token after them.

Sequences whose laws no prefix changes are judged together, a few calls for all of them. The others,
and those whose logits are no distribution, are judged one by one: the plain twin of the same rule.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.constraint import Constraint
from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.verify import Check, Verifier
from draftsmith.engine.rounds.choices import say_along
from draftsmith.engine.rounds.drafting import Proposal
from draftsmith.engine.rounds.outcomes import Checked, Outcome, stood_in, why_bad
from draftsmith.engine.rounds.tree_verdicts import judged_tree, tree_outcome
from draftsmith.engine.rounds.turn import Turn, noise_of_turns
from draftsmith.kernels.cpu.sampling import has_mass, laws, points, points_and_ids
from draftsmith.models.follower import Follower, common_prefix

__all__ = ["check_drafts", "judged", "judged_apart"]


def check_drafts(
    target: Follower,
    turns: Sequence[Turn],
    proposal: Proposal,
    vocab_size: int,
    num_top_ids: int = 0,
) -> list[Outcome]:
    """Run the target once over every draft, and give the verdicts over `vocab_size` ids.

    Args:
        target: What checks.
        turns: The batch.
        proposal: Its drafts.
        vocab_size: The target's.
        num_top_ids: Likeliest ids behind each token that a drafter wants to hear of.
    """
    if any(turn.fault for turn in turns):
        return _check_the_others(target, turns, proposal, vocab_size, num_top_ids)
    feeds = [target.catch_up(turn.view) for turn in turns]
    views = [turn.view for turn in turns]
    tokens = [feed + tokens for feed, tokens in zip(feeds, proposal.tokens, strict=True)]
    if proposal.parents is None:
        logits = target.forward(views, tokens)
    else:
        logits = target.forward(views, tokens, _parents(feeds, proposal))
    firsts = [len(feed) - 1 for feed in feeds]
    outcomes = judged(turns, Checked(logits, firsts, proposal, vocab_size, num_top_ids, {}))
    for view, feed, outcome in zip(views, feeds, outcomes, strict=True):
        if outcome.kept is not None:
            path = [len(feed) + node for node in outcome.kept.path]
            target.keep(view, [*range(len(feed)), *path])
    return outcomes


def _parents(feeds: Sequence[list[int]], proposal: Proposal) -> list[list[int]]:
    """Of all tokens of a pass: drafts follow the last token that is fed before them."""
    found: list[list[int]] = []
    for index, (feed, drafted) in enumerate(zip(feeds, proposal.tokens, strict=True)):
        above = proposal.parents_of(index) or range(-1, len(drafted) - 1)
        found.append([*range(-1, len(feed) - 1), *(len(feed) + parent for parent in above)])
    return found


def _check_the_others(
    target: Follower,
    turns: Sequence[Turn],
    proposal: Proposal,
    vocab_size: int,
    num_top_ids: int,
) -> list[Outcome]:
    """The verdicts where some drafts break the contract: their sequences end."""
    good = [index for index, turn in enumerate(turns) if not turn.fault]
    outcomes = [
        Outcome([], [], 0, None, None, index, turn.fault) for index, turn in enumerate(turns)
    ]
    if not good:
        return outcomes
    draft = proposal.draft.of(good)
    parents = proposal.parents and [proposal.parents[index] for index in good]
    rest = Proposal(draft, [proposal.tokens[index] for index in good], parents)
    found = check_drafts(target, [turns[index] for index in good], rest, vocab_size, num_top_ids)
    for index, outcome in zip(good, found, strict=True):
        outcomes[index] = outcome
    return outcomes


def judged(turns: Sequence[Turn], checked: Checked) -> list[Outcome]:
    """The verdicts, in the order of the batch."""
    found: dict[int, Outcome] = {}
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for index, turn in enumerate(turns):
        groups[_kind(turn, index, checked.proposal)].append(index)
    for kind, members in groups.items():
        if kind == _APART:
            continue
        judge = _judge_points if kind == _GREEDY else _judge_for(turns[members[0]].verifier)
        found |= judge([turns[index] for index in members], members, checked)
    return [
        found[index] if index in found else judged_apart(turn, index, checked)
        for index, turn in enumerate(turns)
    ]


_APART, _GREEDY = "apart", "greedy"


def _kind(turn: Turn, index: int, proposal: Proposal) -> object:
    """What sequences must have in common to be judged together."""
    if turn.law.cuts is None or turn.lenience is not None:
        return _APART
    if turn.law.is_greedy:
        return _GREEDY
    if proposal.parents_of(index) is not None:
        return _APART
    num_drafted = len(proposal.tokens[index])
    return id(turn.verifier), num_drafted, turn.level, turn.inner_round


def _judge_points(
    turns: Sequence[Turn], members: Sequence[int], checked: Checked
) -> dict[int, Outcome]:
    """Verdicts of point masses, which every verifier gives alike."""
    del turns
    # The sync is the round's: its tokens are wanted here.
    tokens = _points(members, checked).tolist()
    found: dict[int, Outcome] = {}
    start = 0
    for index in members:
        drafted = checked.proposal.tokens[index]
        end = start + len(drafted) + 1
        said = tokens[start:end]
        if checked.proposal.parents_of(index) is None:
            found[index] = _greedy_outcome(said, drafted, index, checked)
        else:
            found[index] = tree_outcome(index, checked, said.__getitem__)
        start = end
    return found


def _points(members: Sequence[int], checked: Checked) -> Tensor:
    """Of all rows of some sequences; where somebody asks for more of them, both in one look."""
    rows = checked.places(members)
    if not checked.num_top_ids or checked.top_ids is None:
        return points(rows)
    tokens, likeliest = points_and_ids(rows, checked.num_top_ids)
    checked.top_ids.update(checked.by_member(members, likeliest.tolist()))
    return tokens


def _greedy_outcome(
    points: list[int],
    drafted: list[int],
    index: int,
    checked: Checked,
    constraint: Constraint | None = None,
) -> Outcome:
    kept = common_prefix(drafted, points) if drafted else 0
    if points[kept] == NO_TOKEN:
        why = why_bad(checked.rows(index)[kept], constraint)
        return Outcome(drafted[:kept], drafted, kept, None, checked, index, why)
    # The drafted objects themselves, which a cache's row holds: the same are compared faster.
    tokens = [*drafted[:kept], points[kept]]
    return Outcome(tokens, drafted, kept, None, checked, index, None)


def _judge_for(verifier: Verifier) -> Callable[..., dict[int, Outcome]]:
    """How a verifier's verdicts on chains that are no point masses are made."""
    can_choose = verifier.takes_trees and not verifier.needs_draft_probs
    return _judge_choices if can_choose else _judge_laws


def _judge_choices(
    turns: Sequence[Turn], members: Sequence[int], checked: Checked
) -> dict[int, Outcome]:
    """As `_judge_laws`, of a verifier that compares drafts with the target's own tokens."""
    drafts = [checked.proposal.tokens[index] for index in members]
    found: dict[int, Outcome] = {}
    for place, (tokens, rows) in say_along(turns, drafts, checked.places(members)).items():
        index, kept = members[place], len(tokens) - 1
        found[index] = Outcome(tokens, drafts[place], kept, rows, checked, index, None)
    return found


def _judge_laws(
    turns: Sequence[Turn], members: Sequence[int], checked: Checked
) -> dict[int, Outcome]:
    """Verdicts of one verifier on drafts of one length; none where a row is no distribution."""
    num_drafted = len(checked.proposal.tokens[members[0]])
    cuts = [one for turn in turns if (one := turn.law.cuts) is not None]
    rows = checked.places(members)
    flat = laws(rows, [one for one in cuts for _ in range(num_drafted + 1)])
    # The sync is the round's: its verdicts are read below.
    is_law = has_mass(flat).tolist()
    target_probs = flat.view(len(members), num_drafted + 1, -1)
    verdict = turns[0].verifier.verify(
        _check(members, num_drafted, checked, target_probs, turns[0]), noise_of_turns(turns)
    )
    accepted, tokens = verdict.num_accepted.tolist(), verdict.tokens.tolist()
    found: dict[int, Outcome] = {}
    for place, index in enumerate(members):
        start, kept = place * (num_drafted + 1), accepted[place]
        if all(is_law[start : start + num_drafted + 1]):
            drafted = checked.proposal.tokens[index]
            own = tokens[place][: kept + 1]
            found[index] = Outcome(own, drafted, kept, target_probs[place], checked, index, None)
    return found


def _check(
    members: Sequence[int],
    num_drafted: int,
    checked: Checked,
    target_probs: Float[Tensor, "batch rows vocab"],
    first: Turn,
) -> Check:
    draft = checked.proposal.draft.of(members)
    width = slice(num_drafted)
    lengths = torch.full((len(members),), num_drafted, device=target_probs.device)
    tokens = draft.tokens[:, width]
    probs = None
    if first.verifier.needs_draft_probs:
        probs = draft.dense_probs(target_probs.shape[-1])[:, width]
    return Check(tokens, lengths, probs, target_probs)


def judged_apart(turn: Turn, index: int, checked: Checked) -> Outcome:
    """The verdict on one draft; a row that is no distribution ends the sequence, if reached."""
    if checked.proposal.parents_of(index) is not None:
        return judged_tree(turn, index, checked)
    drafted, logits = checked.proposal.tokens[index], checked.rows(index)
    if turn.law.is_greedy:
        best = turn.points_after(logits, drafted)
        return _greedy_outcome(best, drafted, index, checked, turn.constraint)
    found = turn.laws_after(logits, drafted)
    # The sync is the round's: its verdict is read below.
    is_law = has_mass(found).tolist()
    if not all(is_law):
        found = stood_in(found, is_law)
    check = _check([index], len(drafted), checked, found.unsqueeze(0), turn)
    verdict = turn.verifier.verify(check, turn.noise)
    num_accepted = int(verdict.num_accepted)
    if not all(is_law[: num_accepted + 1]):
        first = is_law.index(False)
        why = why_bad(logits[first], turn.constraint)
        return Outcome(drafted[:first], drafted, first, found, checked, index, why)
    tokens = verdict.tokens[0, : num_accepted + 1].tolist()
    return Outcome(tokens, drafted, num_accepted, found, checked, index, None)
