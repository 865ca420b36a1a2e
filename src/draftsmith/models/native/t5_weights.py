"""The weights of a T5, by what they are for, from a checkpoint that `transformers` saved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from draftsmith.errors import ModelFormatError
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.native.stored import StoredTensor
from draftsmith.models.native.t5_config import T5Config
from draftsmith.models.native.t5_layers import one_by_one, relative_bias

__all__ = [
    "AttentionWeights",
    "ExactMatrix",
    "FeedForwardWeights",
    "FloatMatrix",
    "LayerWeights",
    "StackWeights",
    "T5Matrix",
    "T5Weights",
    "arrange_t5_weights",
]

# The names that one embedding is saved under; which of them a file holds varies.
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
# Saved by the first T5s, and never used.
_UNUSED = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"}


@runtime_checkable
class T5Matrix(Protocol):
    """Weights `[outputs, inputs]`: what a T5 asks of `Matrix`, or of its plain twin."""

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "ids inputs"]:
        """Some rows in float32."""
        ...

    def multiply(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """`inputs @ weights.T`, each row the same whatever the others."""
        ...


@dataclass(frozen=True)
class ExactMatrix:
    """A packed matrix whose products leave the activations in float32."""

    packed: Matrix

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "ids inputs"]:
        """Some rows in float32."""
        return self.packed.rows(ids)

    def multiply(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """`inputs @ weights.T`, each row the same whatever the others."""
        return self.packed.multiply(inputs, exact_activations=True)


@dataclass(frozen=True)
class FloatMatrix:
    """The plain twin of the packed matrix: a float tensor, on any device."""

    weight: Float[Tensor, "outputs inputs"]

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "ids inputs"]:
        """Some rows."""
        return functional.embedding(torch.tensor(ids, device=self.weight.device), self.weight)

    def multiply(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """`inputs @ weights.T`, one row at a time: a library's sums over several may differ."""
        return one_by_one(lambda row: functional.linear(row, self.weight), inputs)


@dataclass(frozen=True)
class AttentionWeights:
    """Attention to the sequence itself or to the source."""

    norm: Float[Tensor, " hidden"]
    query: T5Matrix
    key: T5Matrix
    value: T5Matrix
    output: T5Matrix


@dataclass(frozen=True)
class FeedForwardWeights:
    """`down(relu(up(x)))`, or `down(gelu(gate(x)) * up(x))`."""

    norm: Float[Tensor, " hidden"]
    gate: T5Matrix | None
    up: T5Matrix
    down: T5Matrix


@dataclass(frozen=True)
class LayerWeights:
    """One layer; the encoder's have no cross-attention."""

    self_attention: AttentionWeights
    cross_attention: AttentionWeights | None
    feed_forward: FeedForwardWeights


@dataclass(frozen=True)
class StackWeights:
    """The encoder or the decoder."""

    bias: Float[Tensor, "heads distances"]
    """By `key position - query position`, from -max_distance to max_distance; for all layers."""
    layers: tuple[LayerWeights, ...]
    final_norm: Float[Tensor, " hidden"]


@dataclass(frozen=True)
class T5Weights:
    """All of them."""

    embedding: T5Matrix
    encoder: StackWeights
    decoder: StackWeights
    head: T5Matrix
    """The embedding itself where the two are tied."""


def arrange_t5_weights(
    checkpoint: Mapping[str, StoredTensor],
    config: T5Config,
    to_matrix: Callable[[StoredTensor], T5Matrix],
    device: torch.device,
) -> T5Weights:
    """Read every weight of a checkpoint into its place.

    Args:
        checkpoint: As `open_checkpoint` lists it.
        config: The model's shape, which every tensor is checked against.
        to_matrix: Reads a matrix.
        device: Where norms and biases go.

    Raises:
        ModelFormatError: A tensor is missing, of another shape, or unknown; the message names it.
    """
    reader = _Reader(checkpoint, config, to_matrix, device)
    embedding, head = reader.embedding_and_head()
    weights = T5Weights(
        embedding=embedding,
        encoder=reader.stack("encoder", config.num_encoder_layers),
        decoder=reader.stack("decoder", config.num_decoder_layers),
        head=head,
    )
    reader.check_all_used()
    return weights


class _Reader:
    """Takes tensors out of a checkpoint by name, and knows which are left."""

    def __init__(
        self,
        checkpoint: Mapping[str, StoredTensor],
        config: T5Config,
        to_matrix: Callable[[StoredTensor], T5Matrix],
        device: torch.device,
    ) -> None:
        self._left = {name: one for name, one in checkpoint.items() if name not in _UNUSED}
        self._config = config
        self._to_matrix = to_matrix
        self._device = device

    def check_all_used(self) -> None:
        """Nothing of the checkpoint is left out of the model."""
        if self._left:
            one = next(iter(self._left.values()))
            raise ModelFormatError(
                f"{one.path} has tensor {one.name!r}, which no T5 has; give the plain model"
            )

    def embedding_and_head(self) -> tuple[T5Matrix, T5Matrix]:
        """The embedding under whichever names it has, and the head, which may be the same."""
        names = [name for name in (*_EMBEDDINGS, _HEAD) if name in self._left]
        name = names[0] if names else _EMBEDDINGS[0]
        first = self._take(name, self._config.vocab_size, self._config.hidden_size)
        embedding = head = self._to_matrix(first)
        for name in names[1:]:
            other = self._take(name, self._config.vocab_size, self._config.hidden_size)
            if _is_same(first, other):
                continue
            if name != _HEAD:
                raise ModelFormatError(
                    f"{other.path} has a {name!r} that differs from {first.name!r}; tie them"
                )
            head = self._to_matrix(other)
        return embedding, head

    def stack(self, name: str, num_layers: int) -> StackWeights:
        """The encoder or the decoder."""
        is_decoder, config = name == "decoder", self._config
        table = self._take(
            f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            config.num_buckets,
            config.num_heads,
        )
        bias = relative_bias(table.tensor(), config.max_distance, is_bidirectional=not is_decoder)
        layers = [self._layer(f"{name}.block.{i}.layer", is_decoder) for i in range(num_layers)]
        final_norm = self._norm(f"{name}.final_layer_norm.weight")
        return StackWeights(bias.to(self._device), tuple(layers), final_norm)

    def _layer(self, name: str, is_decoder: bool) -> LayerWeights:
        cross = self._attention(f"{name}.1", "EncDecAttention") if is_decoder else None
        return LayerWeights(
            self_attention=self._attention(f"{name}.0", "SelfAttention"),
            cross_attention=cross,
            feed_forward=self._feed_forward(f"{name}.{2 if is_decoder else 1}"),
        )

    def _attention(self, name: str, kind: str) -> AttentionWeights:
        hidden, inner = self._config.hidden_size, self._config.inner_size
        return AttentionWeights(
            norm=self._norm(f"{name}.layer_norm.weight"),
            query=self._matrix(f"{name}.{kind}.q.weight", inner, hidden),
            key=self._matrix(f"{name}.{kind}.k.weight", inner, hidden),
            value=self._matrix(f"{name}.{kind}.v.weight", inner, hidden),
            output=self._matrix(f"{name}.{kind}.o.weight", hidden, inner),
        )

    def _feed_forward(self, name: str) -> FeedForwardWeights:
        hidden, inner = self._config.hidden_size, self._config.intermediate_size
        dense, is_gated = f"{name}.DenseReluDense", self._config.is_gated
        up = f"{dense}.wi_1.weight" if is_gated else f"{dense}.wi.weight"
        return FeedForwardWeights(
            norm=self._norm(f"{name}.layer_norm.weight"),
            gate=self._matrix(f"{dense}.wi_0.weight", inner, hidden) if is_gated else None,
            up=self._matrix(up, inner, hidden),
            down=self._matrix(f"{dense}.wo.weight", hidden, inner),
        )

    def _norm(self, name: str) -> Tensor:
        return self._take(name, self._config.hidden_size).tensor().to(self._device)

    def _matrix(self, name: str, num_outputs: int, num_inputs: int) -> T5Matrix:
        return self._to_matrix(self._take(name, num_outputs, num_inputs))

    def _take(self, name: str, *shape: int) -> StoredTensor:
        if name not in self._left:
            raise ModelFormatError(f"tensor {name!r} is missing; fetch the model again")
        stored = self._left.pop(name)
        if stored.shape != shape:
            raise ModelFormatError(
                f"{stored.path} has tensor {name!r} of shape {stored.shape}, but config.json "
                f"needs {shape}; fetch both again"
            )
        return stored


def _is_same(one: StoredTensor, other: StoredTensor) -> bool:
    return one.format == other.format and bool((one.read() == other.read()).all())
