"""Models whose rotary frequencies change with every length beyond the trained one (dynamic NTK)."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.causal import CausalModel, one_by_one
from draftsmith.models.hf.ragged_cache import RaggedCache
from draftsmith.models.hf.rotary_laws import reset_dynamic

__all__ = ["DynamicNtkModel"]

_CHUNK = 1024


class DynamicNtkModel(LanguageModel):
    """A model whose tokens beyond the trained length are read one a pass, each with its own length.

    So `transformers`' `generate` reads them: a prompt with the frequencies of its length, each
    token after it with those of the text so far; keys stay as they were read. Rows of other lengths
    share no such pass, and no text finds the frequencies that another one left behind.

    Args:
        model: The model of `transformers`.
        inner: The same behind our contract.
        last_length: The trained length.
    """

    def __init__(self, model: Any, inner: CausalModel, last_length: int) -> None:
        self._model = model
        self._inner = inner
        self._last_length = last_length
        self.traits = inner.traits
        self.device = inner.device

    def open_cache(self) -> RaggedCache:
        """An empty cache of this model."""
        return self._inner.open_cache()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        assert batch.parents is None
        lengths = [
            cache.length(row) + len(tokens)
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
        ]
        if max(lengths) <= self._last_length:
            return self._anew(partial(self._inner.forward, cache, batch))
        if batch.width > 1:
            return one_by_one(batch, partial(self.forward, cache))
        groups: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            groups[max(length, self._last_length)].append(index)
        parts: list[tuple[list[int], Tensor]] = []
        for group in groups.values():
            rows = Rows([batch.rows[i] for i in group], [batch.tokens[i] for i in group])
            parts.append((group, self._anew(partial(self._inner.forward, cache, rows))))
        logits = parts[0][1].new_zeros(len(batch.rows), 1, parts[0][1].shape[-1])
        for group, part in parts:
            logits[group] = part
        return logits

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self.forward(cache, Rows([row], [tokens]))

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a whole prompt but for its last token, whose length it is read with."""
        length = cache.length(row) + len(tokens) + 1
        reach = length - 1 if length > self._last_length else None
        for start in range(0, len(tokens), _CHUNK):
            chunk = tokens[start : start + _CHUNK]
            self._anew(partial(self._inner.extend, cache, row, chunk, reach=reach))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def _anew(self, run: Callable[[], Any]) -> Any:
        """Run a pass whose frequencies are those of its largest position, whatever ran before."""
        reset_dynamic(self._model)
        try:
            return run()
        finally:
            reset_dynamic(self._model)
