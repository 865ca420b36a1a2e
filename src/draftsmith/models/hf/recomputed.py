"""Models whose keys and values cannot be kept here: every token reads the whole text again."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import NotRollbackableError
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.arguments import accepted_arguments
from draftsmith.models.hf.causal import check_positions

__all__ = ["RecomputedModel", "plain_pass"]


@torch.inference_mode()
def plain_pass(model: Any, tokens: Sequence[int], source: Sequence[int] = ()) -> Tensor:
    """Logits of a pass over a whole text without a cache, as `transformers` prepares it.

    Args:
        model: A model of `transformers`.
        tokens: The text; the decoder's where there is an encoder.
        source: The encoder's tokens.

    Returns:
        `[tokens, vocab]`; the last token's only, where a model gives no more.
    """
    ids = torch.tensor([list(tokens)], device=model.device)
    if source:
        # The whole model, as it was trained: FSMT, handed its encoder's output alone, has no
        # causal mask.
        read = torch.tensor([list(source)], device=model.device)
        shown = torch.ones_like(read)
        output = model(input_ids=read, attention_mask=shown, decoder_input_ids=ids, use_cache=False)
        return output.logits[0]
    options: dict[str, Tensor] = {"attention_mask": torch.ones_like(ids)}
    if "position_ids" in accepted_arguments(model):
        # As its `generate` counts them, which RoBERTa by itself would not.
        options["position_ids"] = torch.arange(len(tokens), device=model.device).unsqueeze(0)
    inputs = model.prepare_inputs_for_generation(ids, use_cache=False, **options)
    inputs.pop("logits_to_keep", None)  # some keep the last token's only
    return model(**inputs).logits[0]


class _Texts(CountedCache):
    """The tokens of every row, and of its source."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.tokens: dict[int, list[int]] = {}
        self.sources: dict[int, list[int]] = {}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = super().add()
        self.tokens[row] = []
        return row

    def remove(self, row: int) -> None:
        """Close a row."""
        super().remove(row)
        del self.tokens[row]
        self.sources.pop(row, None)

    def take(self, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to a row."""
        self.tokens[row].extend(tokens)
        self.append(row, len(tokens))

    def rollback(self, row: int, length: int) -> None:
        """Refuse, unless there is nothing to forget."""
        if length != self.length(row):
            raise NotRollbackableError(
                f"{self._name} cannot speculate: use another model, or gamma=0"
            )


class RecomputedModel(LanguageModel):
    """A model of `transformers` without a cache: plain decoding only, one row after another.

    Every step is a pass of the whole model over the whole text.
    """

    def __init__(self, model: Any, traits: ModelTraits) -> None:
        self.model = model
        self.traits = traits
        self.device = model.device

    def open_cache(self) -> _Texts:
        """An empty cache of this model."""
        return _Texts(self.traits.name)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Keep the source of a row, which every pass encodes anew."""
        assert isinstance(cache, _Texts)
        cache.sources[row] = list(source)

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; a pass over the whole text for each of them."""
        assert isinstance(cache, _Texts)
        assert batch.parents is None
        check_positions(self.traits, [cache.length(row) for row in batch.rows], batch)
        parts = [
            torch.stack([self._next(cache, row, token) for token in tokens])
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        assert isinstance(cache, _Texts)
        cache.take(row, tokens)

    def _next(self, cache: _Texts, row: int, token: int) -> Tensor:
        cache.take(row, [token])
        return plain_pass(self.model, cache.tokens[row], cache.sources.get(row, ()))[-1]
