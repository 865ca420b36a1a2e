"""Models whose state cannot be undone (recurrent and hybrid ones): plain decoding only."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from draftsmith.errors import NotRollbackableError
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.arguments import accepted_arguments, cache_argument

__all__ = ["StatefulModel"]


class _StatefulCache(Cache):
    """One state of the model's own kind for each row."""

    def __init__(self, new_state: Callable[[], Any], name: str) -> None:
        self._new_state = new_state
        self._name = name
        self.states: dict[int, Any] = {}
        self.unread: dict[int, list[int]] = {}
        """Tokens of each row that wait for the first ones whose logits are wanted."""
        self._lengths: dict[int, int] = {}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = max(self.states, default=-1) + 1
        self.states[row] = self._new_state()
        self.unread[row] = []
        self._lengths[row] = 0
        return row

    def remove(self, row: int) -> None:
        """Close a row."""
        del self.states[row], self.unread[row], self._lengths[row]

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
    """A `transformers` model with a recurrent state: its rows run one after another.

    Args:
        model: A model of `transformers`.
        traits: What is known of it.
        makes_its_own: Whether the model makes its state by itself, of a kind of its own.
    """

    def __init__(self, model: Any, traits: ModelTraits, *, makes_its_own: bool = False) -> None:
        self.model = model
        self.traits = traits
        self.device = model.device
        self._state_name = cache_argument(model, traits.name)
        self._takes_positions = "position_ids" in accepted_arguments(model)
        self._makes_its_own = makes_its_own

    def open_cache(self) -> _StatefulCache:
        """An empty cache of this model."""
        return _StatefulCache(self._new_state, self.traits.name)

    def _new_state(self) -> Any:
        return None if self._makes_its_own else DynamicCache(config=self.model.config)

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows, one row at a time."""
        assert batch.parents is None
        parts = [
            self._pass(cache, row, tokens)
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits; the next pass reads them."""
        assert isinstance(cache, _StatefulCache)
        cache.unread[row].extend(tokens)
        cache.append(row, len(tokens))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    @torch.inference_mode()
    def _pass(self, cache: Cache, row: int, tokens: Sequence[int]) -> Tensor:
        """A whole prompt in one pass, what follows token by token: as `generate` feeds it.

        Recurrent kernels that take many tokens begin from an empty state, and some of them round
        otherwise than those that take one.
        """
        assert isinstance(cache, _StatefulCache)
        start = cache.length(row) - len(cache.unread[row])
        unread = [*cache.unread[row], *tokens]
        cache.unread[row] = []
        cache.append(row, len(tokens))
        if start == 0:
            return self._feed(cache, row, 0, unread)[-len(tokens) :]
        steps = [self._feed(cache, row, start + i, [one]) for i, one in enumerate(unread)]
        return torch.cat(steps[-len(tokens) :])

    def _feed(self, cache: _StatefulCache, row: int, start: int, tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor([list(tokens)], device=self.device)
        options: dict[str, Any] = {}
        if cache.states[row] is not None:
            options[self._state_name] = cache.states[row]
        if self._takes_positions:
            # Hybrids that count by their first layer's cache, which may hold none, begin anew.
            positions = torch.arange(start, start + len(tokens), device=self.device)
            options["position_ids"] = positions.unsqueeze(0)
        output = self.model(input_ids=ids, use_cache=True, **options)
        if self._makes_its_own:
            cache.states[row] = output[self._state_name]
        return output.logits[0]
