"""Models whose state cannot be undone (recurrent and hybrid ones): plain decoding only."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from draftsmith.errors import NotRollbackableError
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.arguments import cache_argument

__all__ = ["StatefulModel"]


class _StatefulCache(Cache):
    """One state of the model's own kind for each row."""

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self._name = name
        self.states: dict[int, Any] = {}
        self._lengths: dict[int, int] = {}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = max(self.states, default=-1) + 1
        self.states[row] = DynamicCache(config=self._model.config)
        self._lengths[row] = 0
        return row

    def remove(self, row: int) -> None:
        """Close a row."""
        del self.states[row], self._lengths[row]

    def length(self, row: int) -> int:
        """Tokens that the row holds."""
        return self._lengths[row]

    def append(self, row: int, count: int) -> None:
        """Count `count` tokens that a pass has written."""
        self._lengths[row] += count

    def rollback(self, row: int, length: int) -> None:
        """Refuse, unless there is nothing to forget."""
        if length != self._lengths[row]:
            raise NotRollbackableError(
                f"{self._name} cannot forget tokens: speculate with another model, or use gamma=0"
            )


class StatefulModel(LanguageModel):
    """A `transformers` model with a recurrent state: its rows run one after another."""

    def __init__(self, model: Any, traits: ModelTraits) -> None:
        self.model = model
        self.traits = traits
        self.device = model.device
        self._state_name = cache_argument(model, traits.name)

    def open_cache(self) -> _StatefulCache:
        """An empty cache of this model."""
        return _StatefulCache(self.model, self.traits.name)

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows, one row at a time."""
        parts = [
            self._pass(cache, row, tokens)
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._pass(cache, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a whole prompt: recurrent kernels want it in one piece."""
        if tokens:
            self.extend(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    @torch.inference_mode()
    def _pass(self, cache: Cache, row: int, tokens: Sequence[int]) -> Tensor:
        assert isinstance(cache, _StatefulCache)
        if len(tokens) > 1 and cache.length(row) > 0:
            # Recurrent kernels that take many tokens begin from an empty state.
            return torch.cat([self._pass(cache, row, [token]) for token in tokens])
        state = {self._state_name: cache.states[row]}
        ids = torch.tensor([list(tokens)], device=self.device)
        output = self.model(input_ids=ids, use_cache=True, **state)
        cache.append(row, len(tokens))
        return output.logits[0]
