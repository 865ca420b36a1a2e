"""The plain decoder: every step in torch, on any device.

It is what the fast decoders are tested against. Norm, attention, norm, feed-forward, each with
a residual around it (Touvron et al., arXiv:2302.13971), over a cache whose rows are ragged.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import gelu, linear, scaled_dot_product_attention, silu

from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.dense import DenseLayer, DenseWeights, dense_weights
from draftsmith.models.native.torch_cache import TorchCache
from draftsmith.models.native.torch_context import (
    PassContext,
    Waves,
    pass_context,
    rotate,
    seen,
    waves_by_window,
)
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.placement import Placement

__all__ = ["TorchDecoder"]


class TorchDecoder(LanguageModel):
    """A decoder of any family that `DecoderConfig` describes."""

    takes_trees = True

    def __init__(
        self,
        config: DecoderConfig,
        weights: DenseWeights,
        name: str,
        placement: Placement | None = None,
    ) -> None:
        self.num_boundaries = config.num_layers + 1
        self.hidden_size = config.hidden_size
        self.config = config
        # Where logits are: the engine reads them there.
        self.device = weights.head.device
        self.traits = ModelTraits(
            name=name,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        self.dtype = weights.embedding.dtype
        self._weights = weights
        whole = Placement.whole(self.device, config.num_layers)
        self.placement = whole if placement is None else placement

    @classmethod
    def from_weights(
        cls,
        weights: DecoderWeights,
        config: DecoderConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        placement: Placement | None = None,
    ) -> "TorchDecoder":
        """Dequantise packed weights into a decoder.

        Args:
            weights: As `read_gguf` and `read_folder` give them.
            config: The model's shape.
            device: Where it runs.
            dtype: Of weights, activations and cache; norms and softmax are float32 inside.
            name: For messages; None is the architecture's.
            placement: Of its layers over several devices; None is all of them on `device`.

        Example:
            >>> import torch
            >>> from pathlib import Path
            >>> from draftsmith.models.gguf.read import read_gguf
            >>> config, weights = read_gguf(Path("model.gguf"))
            >>> TorchDecoder.from_weights(weights, config, "cpu", torch.bfloat16).traits.name
            'llama'
        """
        whole = Placement.whole(torch.device(device), config.num_layers)
        dense = dense_weights(weights, placement or whole, dtype)
        return cls(config, dense, name or config.architecture, placement)

    def embedded(
        self, tokens: Sequence[int] | Int[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens hidden"]:
        """Rows of the embedding, unscaled, in float32."""
        ids = torch.as_tensor(tokens, dtype=torch.long, device=self.placement.first)
        return self._weights.embedding[ids].float().to(self.device)

    def head_product(self, inputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The output matrix alone, without the final norm, in float32."""
        return linear(inputs.to(self.dtype), self._weights.head).float()

    def head_rows(self, ids: Sequence[int]) -> Float[Tensor, "ids hidden"]:
        """Rows of the output matrix, in float32."""
        return self._weights.head[torch.tensor(ids, device=self.device)].float()

    @property
    def layers(self) -> tuple[DenseLayer, ...]:
        """The layers' weights, in the decoder's own dtype."""
        return self._weights.layers

    @property
    def final_norm(self) -> Float[Tensor, " hidden"]:
        """The weight of the norm before the output matrix, in float32."""
        return self._weights.final_norm.float()

    def open_cache(self) -> TorchCache:
        """An empty cache of this model."""
        return TorchCache(self.config, self.placement, self.dtype)

    @torch.inference_mode()
    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        return self._logits(self._run(cache, batch))

    @torch.inference_mode()
    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """As `forward`, and the residual stream of every new token."""
        states: dict[int, Tensor] = dict.fromkeys(boundaries, torch.empty(0))
        logits = self._logits(self._run(cache, batch, states))
        return logits, self._streams(states, boundaries)

    @torch.inference_mode()
    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """As `extend`, and the residual stream of every token."""
        states: dict[int, Tensor] = dict.fromkeys(boundaries, torch.empty(0))
        self._run(cache, Rows([row], [tokens]), states)
        return self._streams(states, boundaries)[0]

    @torch.no_grad()
    def states_of(
        self, tokens: Int[Tensor, "batch rows"], boundaries: Sequence[int]
    ) -> Float[Tensor, "batch rows boundaries hidden"]:
        """The residual stream of whole texts, read at once and without a cache.

        `forward_with_states` is its twin, text by text; the numbers differ by rounding alone.

        Args:
            tokens: Texts from their beginnings; padding at the end changes nothing before it.
            boundaries: Of the streams that are wanted.
        """
        return self.streams_of(self._embed(tokens.to(self.placement.first)), boundaries)

    def streams_of(
        self, hidden: Float[Tensor, "batch rows hidden"], boundaries: Sequence[int]
    ) -> Float[Tensor, "batch rows boundaries hidden"]:
        """The same of texts that are embedded already; gradients go through it.

        Args:
            hidden: Embeddings, scaled, where the first layer is.
            boundaries: Of the streams that are wanted.
        """
        config = self.config
        rows = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        waves, found = waves_by_window(config, rows), dict[int, Tensor]()
        for device, numbers in self.placement.blocks:
            hidden = hidden.to(device)
            waves = {window: one.to(device) for window, one in waves.items()}
            for number in numbers:
                layer, window = self._weights.layers[number], config.windows[number]
                if number in boundaries:
                    found[number] = hidden
                added = self._look_back(layer, hidden, waves[window], window)
                hidden = self._behind(layer, hidden, added)
        found[config.num_layers] = hidden
        return self._streams(found, boundaries)

    def _look_back(
        self,
        layer: DenseLayer,
        hidden: Float[Tensor, "batch rows hidden"],
        waves: Waves,
        window: int | None,
    ) -> Float[Tensor, "batch rows hidden"]:
        """Attention within whole texts."""
        config, (batch, width, _) = self.config, hidden.shape
        query, key, value = self._projected(layer, hidden)
        query, key = (rotate(states, waves).transpose(1, 2) for states in (query, key))
        group = config.num_heads // config.num_kv_heads
        # Repeated here: not every kernel of a GPU shares heads.
        key, value = (states.repeat_interleave(group, 1) for states in (key, value.transpose(1, 2)))
        scale = config.scales.attention
        if config.scales.attention_cap is None and (window is None or window >= width):
            attended = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        else:
            rows = torch.arange(width, device=hidden.device)
            mask = seen(rows.unsqueeze(1) - rows, window).expand(batch, 1, -1, -1)
            look = self._look if config.scales.attention_cap else scaled_dot_product_attention
            attended = look(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
        return layer.output(attended.transpose(1, 2).reshape(batch, width, -1))

    def _logits(
        self, stream: Float[Tensor, "batch rows hidden"]
    ) -> Float[Tensor, "batch rows vocab"]:
        hidden = _norm(stream, self._weights.final_norm, self.config.norm_epsilon)
        scales = self.config.scales
        logits = _scaled(linear(hidden, self._weights.head), scales.logits)
        return _capped(logits, scales.logit_cap)

    @torch.inference_mode()
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._run(cache, Rows([row], [tokens]))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def _run(
        self, cache: Cache, batch: Rows, states: dict[int, Tensor] | None = None
    ) -> Float[Tensor, "batch rows hidden"]:
        """All layers, over new tokens; the cache holds them afterwards.

        Args:
            cache: Of this model.
            batch: The pass.
            states: Filled with the streams at the boundaries that are its keys.
        """
        assert isinstance(cache, TorchCache)
        past = [cache.length(row) for row in batch.rows]
        cache.reserve(max(batch.rows) + 1, max(past) + batch.width)
        context = pass_context(self.config, batch, past, cache, self.placement.first)
        hidden = self._embed(batch.padded(self.placement.first))
        written: list[list[Tensor]] = []
        for device, numbers in self.placement.blocks:
            hidden, context = hidden.to(device), context.to(device)
            written.append([])
            for number in numbers:
                layer = self._weights.layers[number]
                if states and number in states:
                    states[number] = hidden
                added = self._attend(layer, hidden, context, number, cache, written[-1])
                hidden = self._behind(layer, hidden, added)
        if states and self.config.num_layers in states:
            states[self.config.num_layers] = hidden
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        lost = cache.lost(context.rows, context.places, written, context.masks[None])
        return hidden.masked_fill(lost.unsqueeze(-1), torch.nan)

    def _attend(
        self,
        layer: DenseLayer,
        hidden: Float[Tensor, "batch rows hidden"],
        context: PassContext,
        number: int,
        cache: TorchCache,
        written: list[Tensor],
    ) -> Float[Tensor, "batch rows hidden"]:
        """Write the new keys and values, and note them; look at all that a token may see."""
        config, (batch, width, _) = self.config, hidden.shape
        query, key, value = self._projected(layer, hidden)
        window = config.windows[number]
        waves = context.waves[window]
        new = torch.stack((rotate(key, waves), value))
        written.append(cache.write(number, context.places, new))
        mask, (keys, values, _) = context.masks[window], cache.layers[number]
        slots = slice(mask.shape[-1])
        look = scaled_dot_product_attention if config.scales.attention_cap is None else self._look
        attended = look(
            rotate(query, waves).transpose(1, 2),
            keys[context.rows, slots].transpose(1, 2),
            values[context.rows, slots].transpose(1, 2),
            attn_mask=mask.unsqueeze(1),
            scale=config.scales.attention,
            enable_gqa=True,
        )
        return layer.output(attended.transpose(1, 2).reshape(batch, width, -1))

    def _projected(
        self, layer: DenseLayer, hidden: Float[Tensor, "batch rows hidden"]
    ) -> tuple[
        Float[Tensor, "batch rows heads head"],
        Float[Tensor, "batch rows kv_heads head"],
        Float[Tensor, "batch rows kv_heads head"],
    ]:
        """Queries, keys and values, not yet rotated."""
        config, (batch, width, _) = self.config, hidden.shape
        inputs = _norm(hidden, layer.attention_norm, config.norm_epsilon)
        query = layer.query(inputs).view(batch, width, config.num_heads, config.head_size)
        key = layer.key(inputs).view(batch, width, config.num_kv_heads, config.head_size)
        if layer.query_norm is not None and layer.key_norm is not None:
            query = _norm(query, layer.query_norm, config.norm_epsilon)
            key = _norm(key, layer.key_norm, config.norm_epsilon)
        return query, key, layer.value(inputs).view(key.shape)

    def _look(
        self,
        query: Float[Tensor, "batch heads rows head"],
        key: Float[Tensor, "batch kv_heads slots head"],
        value: Float[Tensor, "batch kv_heads slots head"],
        *,
        attn_mask: Bool[Tensor, "batch 1 rows slots"],
        scale: float | None,
        enable_gqa: bool,
    ) -> Float[Tensor, "batch heads rows head"]:
        """Attention whose scores are capped, which torch's own cannot."""
        assert enable_gqa
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = (query @ key.transpose(2, 3)).float() * factor
        scores = _capped(scores, self.config.scales.attention_cap)
        weights = scores.masked_fill(~attn_mask, -torch.inf).softmax(-1)
        return weights.to(value.dtype) @ value

    def _embed(self, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows hidden"]:
        return _scaled(self._weights.embedding[tokens], self.config.scales.embedding)

    def _streams(
        self, found: Mapping[int, Tensor], boundaries: Sequence[int]
    ) -> Float[Tensor, "batch rows boundaries hidden"]:
        """The wanted streams, of whatever block, side by side."""
        return torch.stack([found[one].to(self.device) for one in boundaries], 2).float()

    def _behind(
        self,
        layer: DenseLayer,
        hidden: Float[Tensor, "batch rows hidden"],
        attended: Float[Tensor, "batch rows hidden"],
    ) -> Float[Tensor, "batch rows hidden"]:
        """The stream behind a layer, given what its attention adds."""
        hidden = hidden + self._to_add(attended, layer.output_norm)
        return hidden + self._to_add(self._feed_forward(layer, hidden), layer.down_norm)

    def _to_add(
        self,
        added: Float[Tensor, "batch rows hidden"],
        weight: Float[Tensor, " hidden"] | None,
    ) -> Float[Tensor, "batch rows hidden"]:
        """What is added to the residual, after a norm and a scale of its own if there are any."""
        if weight is not None:
            added = _norm(added, weight, self.config.norm_epsilon)
        return _scaled(added, self.config.scales.residual)

    def _feed_forward(
        self, layer: DenseLayer, hidden: Float[Tensor, "batch rows hidden"]
    ) -> Float[Tensor, "batch rows hidden"]:
        """SwiGLU or GEGLU (Shazeer, arXiv:2002.05202)."""
        inputs = _norm(hidden, layer.feed_forward_norm, self.config.norm_epsilon)
        gate = layer.gate(inputs)
        is_silu = self.config.activation == "silu"
        gate = silu(gate) if is_silu else gelu(gate, approximate="tanh")
        return layer.down(gate * layer.up(inputs))


def _scaled(values: Float[Tensor, "*shape"], factor: float) -> Float[Tensor, "*shape"]:
    """On a GPU even a product with 1 would cost a launch."""
    return values if factor == 1.0 else values * factor


def _capped(values: Float[Tensor, "*shape"], cap: float | None) -> Float[Tensor, "*shape"]:
    """Values that come near the cap bend towards it."""
    return values if cap is None else cap * torch.tanh(values / cap)


def _norm(
    states: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "*batch width"]:
    """RMSNorm (Zhang & Sennrich, arXiv:1910.07467), its mean in float32."""
    wide = states.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(states.dtype)
