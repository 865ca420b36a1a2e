"""Laws of texts that must have a form: what the form refuses loses its mass, row by row.

Whoever knows the form (a grammar's matcher) says which tokens may follow a prefix. Each row of a
draft's logits is masked for its own prefix, the one that holds if the drafts before it are kept, so
that the law is that of plain decoding under the same masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.laws import History, Law

__all__ = ["ConstrainedLaw", "Constraint"]


@runtime_checkable
class Constraint(Protocol):
    """Which tokens may follow each prefix of one text: a function of the prefix alone.

    Whatever is kept between calls only saves work. A prefix is the output so far, without prompt.
    """

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end the text."""
        ...

    def allowed(self, tokens: Sequence[int], rows: int) -> Bool[Tensor, "{rows} vocab"]:
        """The tokens that may follow each of the last prefixes.

        Args:
            tokens: Output and drafts: all that the last row follows.
            rows: How many prefixes, each a token longer than the one before.

        Returns:
            A row for each. Behind a token that ends the text, or was refused, all are allowed: no
            text comes there, and a draft's law needs some mass.
        """
        ...

    def forced(self, tokens: Sequence[int], most: int) -> list[int]:
        """The tokens that must follow a prefix, one after the other, as far as any must.

        Where only the letters must, they are cut into tokens as the tokenizer would: the text may
        be cut in another way, so that this is a good guess, to be checked like any.

        Args:
            tokens: The prefix.
            most: At most so many are wanted.

        Returns:
            Nothing where there is a choice, or behind an end.
        """
        ...

    def num_allowed(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """How many drafted tokens may follow a prefix, up to the one that is refused.

        Args:
            tokens: The prefix.
            drafted: Tokens behind it; those behind an end are refused.
        """
        ...

    @property
    def complaint(self) -> str:
        """Why nothing may follow, where nothing may: one line, with the remedy."""
        ...


@dataclass(frozen=True)
class ConstrainedLaw:
    """A law, of logits that a constraint has masked.

    The mask comes first of all: bias, penalties and bans look at what it leaves.
    """

    law: Law
    constraint: Constraint
    cuts: None = None
    """Every token changes what may follow."""

    @property
    def is_greedy(self) -> bool:
        """Whether every distribution is a point mass."""
        return self.law.is_greedy

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        return self.law(self._masked(logits, history, drafted), history, drafted)

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand; `NO_TOKEN` for a law without mass."""
        return self.law.points(self._masked(logits, history, drafted), history, drafted)

    def _masked(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        # The sync is the constraint's own: it is looked up on the host.
        tokens = torch.cat([history.output, drafted]).tolist()
        allowed = self.constraint.allowed(tokens, len(logits))
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)
