"""The verdicts on trees: along the target's own tokens, or by the laws that theirs came from."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.tree_verify import TreeCheck
from draftsmith.core.trees import ROOT, ancestors, nodes_tested, walk
from draftsmith.engine.rounds.outcomes import Checked, Kept, Outcome, stood_in, why_bad
from draftsmith.engine.rounds.turn import Turn
from draftsmith.kernels.cpu.sampling import has_mass, laws

__all__ = ["judged_tree", "tree_outcome"]


def judged_tree(turn: Turn, index: int, checked: Checked) -> Outcome:
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

    outcome = tree_outcome(index, checked, said)
    return outcome._replace(laws=torch.cat(found)) if found else outcome


def tree_outcome(index: int, checked: Checked, said: Callable[[int], int]) -> Outcome:
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
        found = stood_in(found, is_law)
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
        why = why_bad(checked.rows(index)[row], None)
    else:
        tokens.append(token)
    return Outcome(tokens, shown, len(path), None, checked, index, why, kept)
