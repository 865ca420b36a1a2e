"""The plain decoder: every step in torch, on any device.

It is what the fast decoders are tested against. Norm, attention, norm, feed-forward, each with
a residual around it (Touvron et al., arXiv:2302.13971), over a cache whose rows are ragged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from draftsmith.kernels.matrix import Matrix
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig, RotaryConfig
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = ["TorchCache", "TorchDecoder"]

_MIN_SLOTS = 256


class TorchCache(CountedCache):
    """Keys and values of every layer: row b's token i lies in slot i of its own buffer.

    Rollback is a shorter length: a rejected token's slot is masked until it is overwritten.
    """

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (config.num_layers, 2, 0, _MIN_SLOTS, config.num_kv_heads, config.head_size)
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        """`[layers, keys and values, rows, slots, heads, elements]`."""

    def reserve(self, num_rows: int, num_slots: int) -> None:
        """Make room for so many rows of so many tokens."""
        held_rows, held_slots = self.buffer.shape[2:4]
        if num_rows <= held_rows and num_slots <= held_slots:
            return
        slots = held_slots if num_slots <= held_slots else max(num_slots, 2 * held_slots)
        layers, both, _, _, *rest = self.buffer.shape
        # Zeros: a masked slot still counts as zero times what lies in it, and that must be 0.
        grown = self.buffer.new_zeros(layers, both, max(num_rows, held_rows), slots, *rest)
        grown[:, :, :held_rows, :held_slots] = self.buffer
        self.buffer = grown


class TorchDecoder(LanguageModel):
    """A decoder of the Llama, Mistral, Qwen2, Qwen3 or SmolLM family."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: "_Weights",
        name: str,
    ) -> None:
        self.config = config
        self.device = weights.embedding.device
        self.traits = ModelTraits(
            name=name,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        self._weights = weights

    @classmethod
    def from_weights(
        cls,
        weights: DecoderWeights,
        config: DecoderConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
    ) -> "TorchDecoder":
        """Dequantise packed weights into a decoder.

        Args:
            weights: As `read_gguf` and `read_folder` give them.
            config: The model's shape.
            device: Where it runs.
            dtype: Of weights, activations and cache; norms and softmax are float32 inside.
            name: For messages; None is the architecture's.

        Example:
            config, weights = read_gguf(Path("model.gguf"))
            model = TorchDecoder.from_weights(weights, config, "cuda", torch.bfloat16)
        """
        place = torch.device(device)
        return cls(config, _load(weights, place, dtype), name or config.architecture)

    def open_cache(self) -> TorchCache:
        """An empty cache of this model."""
        return TorchCache(self.config, self.device, self._weights.embedding.dtype)

    @torch.inference_mode()
    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        hidden = _norm(self._run(cache, batch), self._weights.final_norm, self.config.norm_epsilon)
        return linear(hidden, self._weights.head)

    @torch.inference_mode()
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._run(cache, Rows([row], [tokens]))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def _run(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows hidden"]:
        """All layers, over new tokens; the cache holds them afterwards."""
        assert isinstance(cache, TorchCache)
        past = [cache.length(row) for row in batch.rows]
        cache.reserve(max(batch.rows) + 1, max(past) + batch.width)
        context = _context(self.config, batch, past, self.device)
        hidden = self._weights.embedding[batch.padded(self.device)]
        for number, layer in enumerate(self._weights.layers):
            keys, values = cache.buffer[number]
            hidden = hidden + self._attend(layer, hidden, context, number, keys, values)
            hidden = hidden + self._feed_forward(layer, hidden)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        return hidden

    def _attend(
        self,
        layer: "_Layer",
        hidden: Float[Tensor, "batch rows hidden"],
        context: "_Context",
        number: int,
        keys: Float[Tensor, "cache_rows slots kv_heads head"],
        values: Float[Tensor, "cache_rows slots kv_heads head"],
    ) -> Float[Tensor, "batch rows hidden"]:
        """Write the new keys and values; look at all that a token may see."""
        config, (batch, width, _) = self.config, hidden.shape
        inputs = _norm(hidden, layer.attention_norm, config.norm_epsilon)
        query = layer.query(inputs).view(batch, width, config.num_heads, config.head_size)
        key = layer.key(inputs).view(batch, width, config.num_kv_heads, config.head_size)
        if layer.query_norm is not None and layer.key_norm is not None:
            query = _norm(query, layer.query_norm, config.norm_epsilon)
            key = _norm(key, layer.key_norm, config.norm_epsilon)
        rows = context.rows.unsqueeze(1)
        keys[rows, context.positions] = _rotate(key, context)
        values[rows, context.positions] = layer.value(inputs).view(key.shape)
        mask = context.masks[config.windows[number]]
        seen = slice(mask.shape[-1])
        attended = scaled_dot_product_attention(
            _rotate(query, context).transpose(1, 2),
            keys[context.rows, seen].transpose(1, 2),
            values[context.rows, seen].transpose(1, 2),
            attn_mask=mask.unsqueeze(1),
            enable_gqa=True,
        )
        return layer.output(attended.transpose(1, 2).reshape(batch, width, -1))

    def _feed_forward(
        self, layer: "_Layer", hidden: Float[Tensor, "batch rows hidden"]
    ) -> Float[Tensor, "batch rows hidden"]:
        """SwiGLU (Shazeer, arXiv:2002.05202)."""
        inputs = _norm(hidden, layer.feed_forward_norm, self.config.norm_epsilon)
        return layer.down(silu(layer.gate(inputs)) * layer.up(inputs))


# --- one pass ---------------------------------------------------------------------------------


class _Context(NamedTuple):
    """What all layers of a pass share."""

    rows: Int[Tensor, " batch"]
    """Rows of the cache."""
    positions: Int[Tensor, "batch rows"]
    """Of the new tokens, and the slots that they are written to."""
    cosine: Float[Tensor, "batch rows 1 half_head"]
    sine: Float[Tensor, "batch rows 1 half_head"]
    masks: dict[int | None, Bool[Tensor, "batch rows slots"]]
    """Which slots a token sees, by sliding window."""


def _context(
    config: DecoderConfig, batch: Rows, past: Sequence[int], device: torch.device
) -> _Context:
    start = torch.tensor(past, device=device).unsqueeze(1)
    positions = start + torch.arange(batch.width, device=device)
    # The padding of a short row lands in slots that its own next tokens overwrite.
    rows = torch.tensor(list(batch.rows), device=device)
    slots = torch.arange(max(past) + batch.width, device=device)
    distance = positions.unsqueeze(2) - slots
    masks = {
        window: (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        for window in set(config.windows)
    }
    cosine, sine = _waves(config.rotary, positions)
    return _Context(rows, positions, cosine, sine, masks)


def _waves(
    rotary: RotaryConfig, positions: Int[Tensor, "batch rows"]
) -> tuple[Float[Tensor, "batch rows 1 half_head"], Float[Tensor, "batch rows 1 half_head"]]:
    """Cosine and sine of every position's angles, for all heads."""
    frequencies = rotary.inverse_frequencies.to(positions.device)
    angles = (positions.unsqueeze(-1) * frequencies).unsqueeze(2)
    return angles.cos() * rotary.scale, angles.sin() * rotary.scale


def _rotate(
    states: Float[Tensor, "batch rows heads head"], context: _Context
) -> Float[Tensor, "batch rows heads head"]:
    """Turn each element of the first half with its twin in the second."""
    cosine, sine = context.cosine.to(states.dtype), context.sine.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _norm(
    states: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "*batch width"]:
    """RMSNorm (Zhang & Sennrich, arXiv:1910.07467), its mean in float32."""
    wide = states.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(states.dtype)


# --- weights ----------------------------------------------------------------------------------


class _Linear(NamedTuple):
    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None

    def __call__(self, inputs: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return linear(inputs, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    """`LayerWeights` in one dtype, on one device."""

    attention_norm: Float[Tensor, " hidden"]
    query: _Linear
    key: _Linear
    value: _Linear
    query_norm: Float[Tensor, " head"] | None
    key_norm: Float[Tensor, " head"] | None
    output: _Linear
    feed_forward_norm: Float[Tensor, " hidden"]
    gate: _Linear
    up: _Linear
    down: _Linear


@dataclass(frozen=True)
class _Weights:
    """`DecoderWeights` in one dtype, on one device."""

    embedding: Float[Tensor, "vocab hidden"]
    layers: tuple[_Layer, ...]
    final_norm: Float[Tensor, " hidden"]
    head: Float[Tensor, "vocab hidden"]


def _load(weights: DecoderWeights, device: torch.device, dtype: torch.dtype) -> _Weights:
    def dense(matrix: Matrix) -> Float[Tensor, "outputs inputs"]:
        return matrix.dequantise().to(device, dtype)

    def vector(values: Float[Tensor, " width"] | None) -> Float[Tensor, " width"] | None:
        return None if values is None else values.to(device, dtype)

    def one(projection: Projection) -> _Linear:
        return _Linear(dense(projection.matrix), vector(projection.bias))

    def layer(packed: LayerWeights) -> _Layer:
        return _Layer(
            attention_norm=packed.attention_norm.to(device, dtype),
            query=one(packed.query),
            key=one(packed.key),
            value=one(packed.value),
            query_norm=vector(packed.query_norm),
            key_norm=vector(packed.key_norm),
            output=one(packed.output),
            feed_forward_norm=packed.feed_forward_norm.to(device, dtype),
            gate=one(packed.gate),
            up=one(packed.up),
            down=one(packed.down),
        )

    embedding = dense(weights.embedding)
    is_tied = weights.head is weights.embedding
    return _Weights(
        embedding=embedding,
        layers=tuple(layer(packed) for packed in weights.layers),
        final_norm=weights.final_norm.to(device, dtype),
        head=embedding if is_tied else dense(weights.head),
    )
