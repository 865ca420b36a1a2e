"""The law that `transformers`' logits processors give to one row of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import History, best_tokens, point_masses

__all__ = ["ProcessorLaw", "unprocessed"]


@dataclass(frozen=True)
class ProcessorLaw:
    """The law that `transformers`' logits processors give to one row of a batch.

    Some processors know a row by its number, or count the columns of the padded prompt. So they
    are shown a batch of the shape that they were made for, with this row in every place.

    Example:
        >>> import torch
        >>> from draftsmith.core.laws import History
        >>> nothing = lambda input_ids, scores: scores
        >>> prompt = torch.tensor([5, 6])
        >>> law = ProcessorLaw(nothing, is_greedy=False, prompt=prompt, row=0, batch=1)
        >>> none = torch.empty(0, dtype=torch.long)
        >>> law(torch.zeros(1, 4), History(prompt, none), none).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    is_greedy: bool
    prompt: Int[Tensor, " padded"]
    row: int
    batch: int
    cuts: None = None
    """Processors may look at any token before."""

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        scores = self._processed(logits, history, drafted)
        best = scores.amax(-1, keepdim=True)
        law = point_masses(scores) if self.is_greedy else scores.softmax(-1)
        return torch.where(best.isfinite(), law, 0.0)

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand.

        Args:
            logits: Of consecutive positions.
            history: The committed tokens.
            drafted: Tokens after them; the last row follows all of these.

        Returns:
            An id for each row; `NO_TOKEN` for a law without mass.
        """
        return best_tokens(self._processed(logits, history, drafted))

    def _processed(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        prefix = torch.cat([self.prompt, history.output, drafted])
        rows = len(logits)
        return torch.stack(
            [
                self._scores(prefix[: len(prefix) - (rows - 1 - index)], line)
                for index, line in enumerate(logits.float())
            ]
        )

    def _scores(
        self, prefix: Int[Tensor, " columns"], logits: Float[Tensor, " vocab"]
    ) -> Float[Tensor, " vocab"]:
        ids, lines = prefix.expand(self.batch, -1), logits.repeat(self.batch, 1)
        return self.processors(ids, lines)[self.row]


def unprocessed(ids: Tensor, scores: Tensor) -> Tensor:
    """Scores as they are, for a row whose logits were processed before."""
    return scores
