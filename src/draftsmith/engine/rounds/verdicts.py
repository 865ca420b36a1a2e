"""The verdicts on a batch: which drafts are kept, and the token after them.

Sequences whose laws no prefix changes are judged together, a few calls for all of them. The others,
and those whose logits are no distribution, are judged one by one: the plain twin of the same rule.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.constraint import Constraint
from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.sampling_table import LogitRows
from draftsmith.core.tree_verify import TreeCheck
from draftsmith.core.trees import ROOT, ancestors, nodes_tested, walk
from draftsmith.core.verify import Check, Verifier
from draftsmith.engine.rounds.choices import say_along
from draftsmith.engine.rounds.draft_laws import fitted
from draftsmith.engine.rounds.drafting import Proposal
from draftsmith.engine.rounds.turn import Turn, noise_of_turns
from draftsmith.kernels.cpu.sampling import has_mass, laws, points, points_and_ids
from draftsmith.models.follower import Follower, common_prefix

__all__ = ["Outcome", "check_drafts"]


class Kept(NamedTuple):
    """What was kept of a tree."""

    path: list[int]
    """Drafted tokens by their place in the draft, from the first on."""
    tests: list[int]
    """Those that were held against the target's token: the path, then others."""
    is_whole: bool
    """Whether nothing was drafted behind the path."""


class Outcome(NamedTuple):
    """The verdict on one sequence."""

    tokens: list[int]
    """The kept drafted tokens and the emitted one; only kept ones if `error` is set."""
    drafted: list[int]
    """Of a tree, the kept tokens first, then what else was held against the target's."""
    num_accepted: int
    laws: Float[Tensor, "rows vocab"] | list[Float[Tensor, " vocab"]] | None
    """The target's laws along the draft, one for each token in `tokens`, and perhaps more;
    None where they are the point masses on `tokens`."""
    checked: "Checked | None"
    """The pass, for whoever wants its logits; None if the sequence was not in it."""
    place: int
    """Where in the pass."""
    error: str | None
    kept: Kept | None = None
    """Of a draft that was a tree."""

    def logits(self, column: int) -> Float[Tensor, " vocab"]:
        """The target's logits that a token of the verdict was chosen by."""
        assert self.checked is not None
        if self.kept is not None and column:
            column = self.kept.path[column - 1] + 1
        return self.checked.rows(self.place)[column]

    @property
    def num_tested(self) -> int:
        """Drafted tokens until the first that was wrong, which counts."""
        if self.kept is not None and self.kept.is_whole:
            return self.num_accepted
        return min(self.num_accepted + 1, len(self.drafted))


class Checked(NamedTuple):
    """One pass of the target over drafts."""

    logits: Float[Tensor, "batch width columns"]
    firsts: Sequence[int]
    """Of each sequence, the column whose logits its first drafted token is held against."""
    proposal: Proposal
    vocab_size: int
    num_top_ids: int = 0
    """Likeliest ids behind each token that a drafter wants to hear of."""
    top_ids: dict[int, list[list[int]]] | None = None
    """Of sequences whose verdicts have found them on the way."""

    def rows(self, index: int) -> Float[Tensor, "rows vocab"]:
        """The logits before a sequence's draft, and behind each of its tokens."""
        first, count = self.firsts[index], len(self.proposal.tokens[index]) + 1
        return fitted(self.logits[index, first : first + count], self.vocab_size)

    def places(self, indices: Sequence[int]) -> LogitRows:
        """The same rows of some sequences, where they lie."""
        places = [
            (index, self.firsts[index] + offset)
            for index in indices
            for offset in range(len(self.proposal.tokens[index]) + 1)
        ]
        return LogitRows(self.logits, places, self.vocab_size)

    def by_member(
        self, members: Sequence[int], rows: list[list[int]]
    ) -> dict[int, list[list[int]]]:
        """What was found of `places`, for each of these sequences."""
        found: dict[int, list[list[int]]] = {}
        start = 0
        for member in members:
            end = start + len(self.proposal.tokens[member]) + 1
            found[member] = rows[start:end]
            start = end
        return found


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
            found[index] = _tree_outcome(index, checked, said.__getitem__)
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
        why = _why_bad(checked.rows(index)[kept], constraint)
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
        return _judged_tree(turn, index, checked)
    drafted, logits = checked.proposal.tokens[index], checked.rows(index)
    if turn.law.is_greedy:
        best = turn.points_after(logits, drafted)
        return _greedy_outcome(best, drafted, index, checked, turn.constraint)
    found = turn.laws_after(logits, drafted)
    # The sync is the round's: its verdict is read below.
    is_law = has_mass(found).tolist()
    if not all(is_law):
        found = _stood_in(found, is_law)
    check = _check([index], len(drafted), checked, found.unsqueeze(0), turn)
    verdict = turn.verifier.verify(check, turn.noise)
    num_accepted = int(verdict.num_accepted)
    if not all(is_law[: num_accepted + 1]):
        first = is_law.index(False)
        why = _why_bad(logits[first], turn.constraint)
        return Outcome(drafted[:first], drafted, first, found, checked, index, why)
    tokens = verdict.tokens[0, : num_accepted + 1].tolist()
    return Outcome(tokens, drafted, num_accepted, found, checked, index, None)


def _judged_tree(turn: Turn, index: int, checked: Checked) -> Outcome:
    """The verdict on a tree: the target's own token, asked for along the path that it takes."""
    if turn.verifier.needs_draft_probs and checked.proposal.draft.probs is not None:
        return _judged_drawn_tree(turn, index, checked)
    drafted, logits = checked.proposal.tokens[index], checked.rows(index)
    parents = checked.proposal.parents_of(index)
    assert parents is not None
    found: list[Tensor] = []

    def said(row: int) -> int:
        prefix = [drafted[node] for node in ancestors(parents, row - 1)]
        if turn.law.is_greedy:
            return turn.points_after(logits[row : row + 1], prefix)[0]
        law = turn.laws_after(logits[row : row + 1], prefix)
        if not bool(has_mass(law)):
            return NO_TOKEN
        found.append(law)
        # The sync is the round's: it says where the walk goes on.
        return int(turn.verifier.choose(law, turn.noise, len(prefix)))

    outcome = _tree_outcome(index, checked, said)
    return outcome._replace(laws=torch.cat(found)) if found else outcome


def _tree_outcome(index: int, checked: Checked, said: Callable[[int], int]) -> Outcome:
    """Where the target's tokens lead in a tree.

    Args:
        index: Of the sequence.
        checked: The pass.
        said: The target's token after a row of the pass, 0 for the one before the draft.
    """
    drafted, parents = checked.proposal.tokens[index], checked.proposal.parents_of(index)
    assert parents is not None
    path, token = walk(drafted, parents, lambda path: said(path[-1] + 1 if path else 0))
    return _along(path, token, index, checked)


def _judged_drawn_tree(turn: Turn, index: int, checked: Checked) -> Outcome:
    """The verdict on a tree whose tokens were drawn, by the laws that they came from."""
    proposal = checked.proposal
    drafted, parents, probs = (
        proposal.tokens[index],
        proposal.parents_of(index),
        proposal.draft.probs,
    )
    assert parents is not None
    assert probs is not None
    found = _laws_of_tree(turn, index, checked)
    # The sync is the round's: its verdict is read below.
    is_law = has_mass(found).tolist()
    if not all(is_law):
        found = _stood_in(found, is_law)
    columns = slice(len(drafted))
    tokens = proposal.draft.tokens[index, columns].unsqueeze(0)
    laws_drawn = probs[index, columns].unsqueeze(0)
    check = TreeCheck(parents, tokens, laws_drawn, found.unsqueeze(0))
    verdict = turn.verifier.verify_tree(check, turn.noise)
    path = ancestors(parents, int(verdict.ends))
    rows = [0, *(node + 1 for node in path)]
    bad = [place for place, row in enumerate(rows) if not is_law[row]]
    if bad:
        path, rows = path[: bad[0]], rows[: bad[0] + 1]
    token = NO_TOKEN if bad else int(verdict.tokens)
    return _along(path, token, index, checked)._replace(laws=found[rows])


def _laws_of_tree(turn: Turn, index: int, checked: Checked) -> Float[Tensor, "rows vocab"]:
    """The target's laws before a tree and behind each of its nodes."""
    drafted, parents = checked.proposal.tokens[index], checked.proposal.parents_of(index)
    assert parents is not None
    if turn.law.cuts is not None:
        return laws(checked.places([index]), [turn.law.cuts] * (len(drafted) + 1))
    logits = checked.rows(index)
    paths = [ancestors(parents, node) for node in range(ROOT, len(drafted))]
    return torch.cat(
        [
            turn.laws_after(logits[row : row + 1], [drafted[node] for node in path])
            for row, path in enumerate(paths)
        ]
    )


def _along(path: list[int], token: int, index: int, checked: Checked) -> Outcome:
    """The verdict that keeps a path of a tree, with the target's token behind it."""
    drafted, parents = checked.proposal.tokens[index], checked.proposal.parents_of(index)
    assert parents is not None
    kept = Kept(path, nodes_tested(parents, path), (path[-1] if path else ROOT) not in parents)
    told = dict.fromkeys([*kept.tests, *range(len(drafted))])
    shown = [drafted[node] for node in told]
    tokens, why = [drafted[node] for node in path], None
    if token == NO_TOKEN:
        row = path[-1] + 1 if path else 0
        why = _why_bad(checked.rows(index)[row], None)
    else:
        tokens.append(token)
    return Outcome(tokens, shown, len(path), None, checked, index, why, kept)


def _stood_in(
    found: Float[Tensor, "rows vocab"], is_law: Sequence[bool]
) -> Float[Tensor, "rows vocab"]:
    """Laws, and a stand-in for what is none: the verdict on the rows before it stays exact."""
    stand_in = torch.tensor(is_law, device=found.device).logical_not_().unsqueeze(1)
    return torch.where(stand_in, 1 / found.shape[-1], found)


def _why_bad(logits: Float[Tensor, " vocab"], constraint: Constraint | None) -> str:
    if bool(logits.isnan().any()):
        return "the model's logits are NaN: try another dtype"
    if bool((logits == torch.inf).any()):
        return "the model's logits are infinite: try another dtype"
    if constraint is not None:
        return constraint.complaint
    return "no token is allowed here: loosen bans, allowed_token_ids or min_tokens"
