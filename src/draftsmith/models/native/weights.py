"""The weights of a decoder, by what they are for."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.kernels.matrix import Matrix

__all__ = ["DecoderWeights", "LayerWeights", "Projection", "size_of"]


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

    @property
    def num_weights(self) -> int:
        """Of its matrices."""
        parts = (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)
        return sum(size_of(part.matrix) for part in parts)


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
        return sum(map(size_of, tables)) + sum(layer.num_weights for layer in self.layers)


def size_of(matrix: Matrix) -> int:
    """The number of its weights."""
    return matrix.num_outputs * matrix.num_inputs
