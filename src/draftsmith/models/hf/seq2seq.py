"""Any encoder-decoder model of `transformers` (T5 family, BART …): encode once, decode ragged."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache as TransformersCache
from transformers.cache_utils import CacheLayerMixin, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from draftsmith.errors import InvalidRequestError, NotRollbackableError
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.arguments import cache_argument
from draftsmith.models.hf.causal import check_positions, in_groups, marked, one_by_one, padding_mask
from draftsmith.models.hf.ragged_cache import RaggedCache

__all__ = ["EncoderDecoderModel", "EncoderOutput"]

_RELATIVE_POSITIONS = {"t5", "mt5", "umt5", "longt5", "switch_transformers", "pix2struct"}
"""Families whose decoders know distances only, so that left padding moves nothing."""


@dataclass
class EncoderOutput(BaseModelOutput):
    """An encoder's states, for every class of decoder."""

    router_logits: Any = None
    """What a mixture of experts asks for; they train the routers and change no logits."""


class _CrossLayer(CacheLayerMixin):
    """One layer's keys and values of each row's source, computed once."""

    is_sliding = False
    is_croppable = True

    def __init__(self, layout: "_Sources", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout = layout
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep what the model computed of the one row that is being encoded."""
        assert self._layout.encoding is not None
        self.is_initialized = True
        self._held[self._layout.encoding] = (key_states[0], value_states[0])
        return key_states, value_states

    def arrange(self, rows: Sequence[int], width: int) -> None:
        """Show the model these rows, padded at the end to `width` source tokens."""
        self.keys, self.values = (
            torch.stack([_padded(self._held[row][part], width) for row in rows]) for part in (0, 1)
        )

    def forget(self, row: int) -> None:
        """Drop a row."""
        self._held.pop(row, None)

    def get_seq_length(self) -> int:
        """Source tokens shown."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Source tokens shown, from the first."""
        return self.get_seq_length(), 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class _Sources:
    """Which row is being encoded; shared by all cross-attention layers."""

    def __init__(self) -> None:
        self.encoding: int | None = None


class _EncoderDecoderRows(RaggedCache):
    """Decoder rows, and for each the encoder's output and its projections."""

    def __init__(self, traits: ModelTraits) -> None:
        super().__init__()
        self._traits = traits
        self.sources = _Sources()
        layer: Any = partial(_CrossLayer, self.sources)
        self.cross = TransformersCache(layer_class_to_replicate=layer)
        self.both = EncoderDecoderCache(self.for_model, self.cross)
        self.encoded: dict[int, Tensor] = {}
        self._arranged: tuple[int, ...] = ()
        self._shown: tuple[Tensor, Tensor] | None = None

    def remove(self, row: int) -> None:
        """Close a row, its source included."""
        super().remove(row)
        self.encoded.pop(row, None)
        self._arranged = ()
        for layer in self._cross_layers():
            layer.forget(row)

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row, unless the model cannot."""
        if not self._traits.can_rollback and length != self.length(row):
            raise NotRollbackableError(
                f"{self._traits.name} cannot speculate: {self._traits.why_no_rollback}; use gamma=0"
            )
        super().rollback(row, length)

    def _cross_layers(self) -> list[_CrossLayer]:
        return [layer for layer in self.cross.layers if isinstance(layer, _CrossLayer)]

    def show(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Line up the sources of a pass: encoder states and their mask, padded at the end."""
        if self._shown is None or tuple(rows) != self._arranged:
            states = [self.encoded[row] for row in rows]
            width = max(len(state) for state in states)
            for layer in self._cross_layers():
                layer.arrange(rows, width)
            mask = torch.stack([_padded(torch.ones_like(s[:, :1]), width)[:, 0] for s in states])
            self._shown = torch.stack([_padded(state, width) for state in states]), mask.long()
            self._arranged = tuple(rows)
        self.both.is_updated = dict.fromkeys(range(len(self.cross.layers)), True)
        return self._shown


class EncoderDecoderModel(LanguageModel):
    """A `transformers` sequence-to-sequence model behind our contract.

    A batch goes token by token where a pass over several would have another law: through a model
    that cannot roll back, behind a padding id in a text (M2M100 counts positions by the ids of a
    pass), and where a pass could fill an expert (Switch).
    """

    def __init__(self, model: Any, traits: ModelTraits) -> None:
        self.model = model
        self.traits = traits
        self.device = model.device
        self._cache_name = cache_argument(model, traits.name)
        counts_ids = any(
            hasattr(module, "create_position_ids_from_input_ids") for module in model.modules()
        )
        self._uncounted_id = model.config.pad_token_id if counts_ids else None
        self._widest = getattr(model.config, "expert_capacity", None) or 2**31
        self._is_relative = model.config.model_type in _RELATIVE_POSITIONS

    def open_cache(self) -> _EncoderDecoderRows:
        """An empty cache of this model."""
        return _EncoderDecoderRows(self.traits)

    @torch.inference_mode()
    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder over the source, and let every decoder layer project it once."""
        longest = self.traits.source_length
        if longest is not None and len(source) > longest:
            raise InvalidRequestError(
                f"a source of {len(source)} tokens, but {self.traits.name} reads {longest}: "
                "shorten it"
            )
        ids = torch.tensor([list(source)], device=self.device)
        mask = torch.ones_like(ids)
        encoder = self.model.get_encoder()
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        self.hold_source(cache, row, states[0])

    @torch.inference_mode()
    def hold_source(self, cache: Cache, row: int, states: Float[Tensor, "source hidden"]) -> None:
        """Let every decoder layer project a row's encoder states once, and keep them."""
        assert isinstance(cache, _EncoderDecoderRows)
        mask = torch.ones(1, len(states), dtype=torch.long, device=self.device)
        cache.encoded[row] = states
        cache.sources.encoding = row
        cache.both.is_updated = {}
        cache.layout.begin([row], [0], 1, self.device)
        # The token is any: this pass is for the projections, and its row is written over.
        self._run(cache, torch.zeros_like(mask[:, :1]), None, states[None], mask)
        cache.sources.encoding = None

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        assert isinstance(cache, _EncoderDecoderRows)
        assert batch.parents is None
        if batch.width > 1 and not self._is_one_law(batch):
            return one_by_one(batch, lambda step: self.forward(cache, step))
        if self._is_relative:
            return self._pass(cache, batch)
        return in_groups(batch, cache, lambda group: self._pass(cache, group))

    def _is_one_law(self, batch: Rows) -> bool:
        """Whether a pass over several tokens says what passes over one would say."""
        if not self.traits.can_rollback or batch.width > self._widest:
            return False
        return all(self._uncounted_id not in tokens[:-1] for tokens in batch.tokens)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self.forward(cache, Rows([row], [tokens]))

    @torch.inference_mode()
    def _pass(self, cache: _EncoderDecoderRows, batch: Rows) -> Tensor:
        past = [cache.length(row) for row in batch.rows]
        check_positions(self.traits, past, batch)
        states, source_mask = cache.show(batch.rows)
        cache.layout.begin(batch.rows, past, batch.width, self.device)
        mask = None
        if not cache.layout.is_aligned:
            mask = padding_mask(past, batch.width, self.device)
        logits = self._run(cache, batch.padded(self.device), mask, states, source_mask)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        return marked(logits, cache.lost())

    def _run(
        self,
        cache: _EncoderDecoderRows,
        tokens: Tensor,
        mask: Tensor | None,
        states: Tensor,
        source_mask: Tensor,
    ) -> Tensor:
        return self.model(
            encoder_outputs=EncoderOutput(last_hidden_state=states),
            attention_mask=source_mask,
            decoder_input_ids=tokens,
            decoder_attention_mask=mask,
            use_cache=True,
            **{self._cache_name: cache.both},
        ).logits


def _padded(states: Tensor, width: int) -> Tensor:
    """Zeros after the source, along the dimension before the last."""
    return torch.nn.functional.pad(states, (0, 0, 0, width - states.shape[-2]))
