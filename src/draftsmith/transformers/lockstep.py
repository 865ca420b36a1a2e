"""Rules that keep a state are asked as `transformers` asks them: once a token, with the batch.

A structured-output processor moves on by the last token of each call. So beside such a rule no
token is drafted: all rows grow together, one token a round, and the processors see each round's
logits of the whole batch before our law does. Rows that have ended show padding, as there.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows

__all__ = ["Lockstep", "LockstepModel"]


class Lockstep:
    """The batch as `transformers` would have it, and its rules.

    Args:
        prompts: Padded on the left.
        processors: Asked once a token.
        criteria: Which rows are over, asked once a token; None where they are asked elsewhere.
        pad: What rows that have ended go on with; None lets them go on until all have ended.
    """

    def __init__(
        self,
        prompts: Int[Tensor, "batch columns"],
        processors: Callable[[Tensor, Tensor], Tensor],
        criteria: Callable[[Tensor], Tensor] | None,
        pad: int | None,
    ) -> None:
        self._ids = prompts
        self._processors = processors
        self._criteria = criteria
        self._pad = pad
        self._is_first = True
        self._num_output = 0
        self._met: Bool[Tensor, " batch"] = torch.zeros(len(prompts), dtype=torch.bool)
        self.lengths: dict[int, int] = {}
        """Output tokens of the rows that a stopping criterion has ended."""

    def is_over(self, row: int) -> bool:
        """Whether a criterion has ended a row; it is known when the next token comes."""
        return row in self.lengths

    def scores(
        self, rows: Sequence[int], tokens: Sequence[int], logits: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """Take the newest token of the rows that live; give their processed logits."""
        if not self._is_first:
            self._grow(rows, tokens)
        self._is_first = False
        if len(self.lengths) == len(self._ids):
            return logits  # transformers has stopped: nothing is asked any more
        table = logits.new_zeros(len(self._ids), logits.shape[-1], dtype=torch.float32)
        table[list(rows)] = logits.float()
        return self._processors(self._ids, table.to(self._ids.device))[list(rows)].to(logits.device)

    def _grow(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        newest = self._ids.new_full((len(self._ids),), self._pad or 0)
        for row, token in zip(rows, tokens, strict=True):
            if row not in self.lengths:
                newest[row] = token
        self._ids = torch.cat([self._ids, newest.unsqueeze(1)], dim=1)
        self._num_output += 1
        if self._criteria is None:
            return
        self._met |= self._criteria(self._ids)
        if self._pad is None and not bool(self._met.all()):
            return
        for row in self._met.nonzero()[:, 0].tolist():
            self.lengths.setdefault(row, self._num_output)


class LockstepModel(LanguageModel):
    """A target whose logits come processed; rows of its cache are rows of the batch, in order."""

    def __init__(self, inner: LanguageModel, lockstep: Lockstep) -> None:
        self._inner = inner
        self._lockstep = lockstep
        self.traits = inner.traits
        self.device = inner.device
        self.uses_torch_threads = inner.uses_torch_threads

    def open_cache(self) -> Cache:
        """The target's."""
        return self._inner.open_cache()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch 1 vocab"]:
        """Append one token to each row; return the processed logits after it."""
        assert batch.width == 1
        assert batch.parents is None
        logits = self._inner.forward(cache, batch)
        tokens = [token for (token,) in batch.tokens]
        return self._lockstep.scores(batch.rows, tokens, logits[:, 0]).unsqueeze(1)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._inner.extend(cache, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a prompt to one row."""
        self._inner.prefill(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder over the source of a row."""
        self._inner.encode(cache, row, source)
