"""The verdict on one sequence, and the pass that it was read from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.constraint import Constraint
from draftsmith.core.sampling_table import LogitRows
from draftsmith.engine.rounds.draft_laws import fitted
from draftsmith.engine.rounds.drafting import Proposal

__all__ = ["Checked", "Kept", "Outcome", "stood_in", "why_bad"]


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


def stood_in(
    found: Float[Tensor, "rows vocab"], is_law: Sequence[bool]
) -> Float[Tensor, "rows vocab"]:
    """Laws, and a stand-in for what is none: the verdict on the rows before it stays exact."""
    stand_in = torch.tensor(is_law, device=found.device).logical_not_().unsqueeze(1)
    return torch.where(stand_in, 1 / found.shape[-1], found)


def why_bad(logits: Float[Tensor, " vocab"], constraint: Constraint | None) -> str:
    """Why a row of logits is no distribution."""
    if bool(logits.isnan().any()):
        return "the model's logits are NaN: try another dtype"
    if bool((logits == torch.inf).any()):
        return "the model's logits are infinite: try another dtype"
    if constraint is not None:
        return constraint.complaint
    return "no token is allowed here: loosen bans, allowed_token_ids or min_tokens"
