"""One proposal of a drafter: tokens of each sequence, chains or trees, and their laws."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.values import is_whole
from draftsmith.core.verdict import PAD_TOKEN
from draftsmith.errors import DraftError

__all__ = ["Draft"]


@dataclass(frozen=True)
class Draft:
    """One proposal for each sequence of a batch: tokens, a chain or a tree, and their laws.

    Example:
        >>> import torch
        >>> Draft.certain([[5, 6], []], torch.device("cpu")).num_drafted.tolist()
        [2, 0]
    """

    tokens: Int[Tensor, "batch gamma"]
    """Drafted ids; `PAD_TOKEN` from `num_drafted` on."""
    num_drafted: Int[Tensor, " batch"]
    probs: Float[Tensor, "batch gamma vocab"] | None
    """The laws that the tokens were drawn from; None: each token was certain (a point mass)."""
    parents: Sequence[Sequence[int]] | None = None
    """Of each token the index of the one that it follows, less than its own; -1 follows the newest
    committed token. None: each follows the one before it. Certain tokens stand in the order in
    which they are worth checking: a draft that is cut is a tree, too. Drawn ones stand in the order
    in which they were drawn, each with the law that it came from, given the siblings before it:
    how many siblings it has may depend on what was drawn before the first of them, and every one
    of them is proposed. `DraftContext.grow` sees to that."""
    confidences: Sequence[Sequence[float]] | None = None
    """How sure the drafter is of each token of a deterministic draft, 0 to 1, best as a rough
    probability. Gamma "auto" learns what they are worth, and cuts drafts by them."""

    @classmethod
    def certain(
        cls,
        tokens: Sequence[Sequence[int]],
        device: torch.device,
        confidences: Sequence[Sequence[float]] | None = None,
        parents: Sequence[Sequence[int]] | None = None,
    ) -> "Draft":
        """A deterministic draft: tokens without a law.

        Args:
            tokens: For each sequence, `[]` for none.
            device: Where the draft is wanted: `DraftContext.device`.
            confidences: How sure each token is, if the one that it follows is right; None does
                not say.
            parents: Of each token the index of the one that it follows, if they are no chains:
                only where `DraftContext.takes_trees`.

        Returns:
            The draft.

        Raises:
            DraftError: If a token is no whole number.
        """
        if not set(map(type, chain.from_iterable(tokens))) <= {int}:
            odd = [t for row in tokens for t in row if type(t) is not int and not is_whole(t)]
            if odd:
                raise DraftError(f"a draft is made of token ids, got {odd[0]!r:.80}")
            tokens = [[int(token) for token in row] for row in tokens]
        return _Certain.given([list(row) for row in tokens], device, parents, confidences)

    @property
    def is_listed(self) -> bool:
        """Whether `lists` is there without a look at a tensor."""
        return False

    def lists(self) -> list[list[int]]:
        """The drafted ids of each sequence, on the host.

        Returns:
            As many as `num_drafted` says, or fewer where `tokens` has not so many.
        """
        lengths = self.num_drafted.tolist()
        return [row[:length] for row, length in zip(self.tokens.tolist(), lengths, strict=True)]

    def of(self, rows: Sequence[int]) -> "Draft":
        """The drafts of some sequences.

        Args:
            rows: Indices into the batch, in the order that is wanted.

        Returns:
            The same tokens and laws; this very draft, if all are wanted as they are.
        """
        if list(rows) == list(range(len(self.tokens))):
            return self
        index = torch.tensor(rows, dtype=torch.long, device=self.tokens.device)
        probs = None if self.probs is None else self.probs[index]
        parents = None if self.parents is None else [self.parents[row] for row in rows]
        return Draft(self.tokens[index], self.num_drafted[index], probs, parents)

    def cut(self, lengths: Sequence[int]) -> "Draft":
        """The first so many tokens of each sequence of a deterministic draft.

        Args:
            lengths: For each sequence.

        Returns:
            A draft without laws.
        """
        rows = zip(self.tokens.tolist(), lengths, strict=True)
        return Draft.certain([row[:length] for row, length in rows], self.tokens.device)

    def dense_probs(self, vocab: int) -> Float[Tensor, "batch gamma {vocab}"]:
        """The laws as a tensor; point masses where the tokens were certain.

        Args:
            vocab: The target's number of ids.

        Returns:
            A law for each drafted token.
        """
        if self.probs is not None:
            return self.probs
        index = self.tokens.clamp(min=0).unsqueeze(-1)
        masses = torch.zeros(*self.tokens.shape, vocab, device=self.tokens.device)
        return masses.scatter_(-1, index, 1.0)


class _Certain(Draft):
    """A draft that was given as lists: its tensors are made for whoever asks for them.

    A check of greedy texts asks for none, and each would cost 20 us behind a pass. One that
    `dataclasses.replace` has made of it has tensors and no lists, as any other draft.
    """

    @classmethod
    def given(
        cls,
        rows: list[list[int]],
        device: torch.device,
        parents: Sequence[Sequence[int]] | None,
        confidences: Sequence[Sequence[float]] | None,
    ) -> "_Certain":
        """A draft of these lists."""
        draft = cls.__new__(cls)
        # A frozen class is filled behind its own back.
        vars(draft).update(
            _rows=rows, _device=device, probs=None, parents=parents, confidences=confidences
        )
        return draft

    @cached_property
    def tokens(self) -> Int[Tensor, "batch gamma"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        rows: list[list[int]] = vars(self)["_rows"]
        width = max(map(len, rows), default=0)
        table = [[*row, *[PAD_TOKEN] * (width - len(row))] for row in rows]
        found = torch.tensor(table, dtype=torch.long, device=vars(self)["_device"])
        return found.view(len(rows), width)

    @cached_property
    def num_drafted(self) -> Int[Tensor, " batch"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        rows, device = vars(self)["_rows"], vars(self)["_device"]
        return torch.tensor(list(map(len, rows)), dtype=torch.long, device=device)

    @property
    def is_listed(self) -> bool:
        """Whether it was given as lists."""
        return "_rows" in vars(self)

    def lists(self) -> list[list[int]]:
        """The drafted ids of each sequence, as they were given."""
        return vars(self)["_rows"] if self.is_listed else super().lists()

    def of(self, rows: Sequence[int]) -> Draft:
        """The drafts of some sequences."""
        if not self.is_listed:
            return super().of(rows)
        own = self.lists()
        if list(rows) == list(range(len(own))):
            return self
        parents = None if self.parents is None else [self.parents[row] for row in rows]
        return _Certain.given([own[row] for row in rows], vars(self)["_device"], parents, None)
