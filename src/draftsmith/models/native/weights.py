"""The weights of a decoder, by what they are for."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.kernels.matrix import Matrix

__all__ = ["DecoderWeights", "LayerWeights", "Projection"]


@dataclass(frozen=True)
class Projection:
    """y = W x + b."""

    matrix: Matrix
    """`[outputs, inputs]`, packed."""
    bias: Float[Tensor, " outputs"] | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One layer."""

    attention_norm: Float[Tensor, " hidden"]
    query: Projection
    key: Projection
    value: Projection
    query_norm: Float[Tensor, " head"] | None
    """RMSNorm of each query head (Qwen3)."""
    key_norm: Float[Tensor, " head"] | None
    output: Projection
    feed_forward_norm: Float[Tensor, " hidden"]
    gate: Projection
    up: Projection
    down: Projection
    output_norm: Float[Tensor, " hidden"] | None = None
    """RMSNorm of what attention adds to the residual (Gemma 2, 3)."""
    down_norm: Float[Tensor, " hidden"] | None = None
    """The same of what the feed-forward adds."""


@dataclass(frozen=True)
class DecoderWeights:
    """All of them."""

    embedding: Matrix
    """`[vocab, hidden]`; only single rows are read."""
    layers: tuple[LayerWeights, ...]
    final_norm: Float[Tensor, " hidden"]
    head: Matrix
    """`[vocab, hidden]`; the embedding itself where the two are tied."""

    @property
    def num_weights(self) -> int:
        """Of all matrices."""
        tables = [self.embedding] if self.head is self.embedding else [self.embedding, self.head]
        parts = ("query", "key", "value", "output", "gate", "up", "down")
        rest = [getattr(layer, part).matrix for layer in self.layers for part in parts]
        return sum(matrix.num_outputs * matrix.num_inputs for matrix in (*tables, *rest))
