"""A decoder's weights dequantised: in one dtype, each layer on one device."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from draftsmith.kernels.matrix import Matrix
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection
from draftsmith.models.placement import Placement

__all__ = ["DenseLayer", "DenseLinear", "DenseWeights", "dense_layer", "dense_weights"]


class DenseLinear(NamedTuple):
    """y = W x + b."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None

    def __call__(self, inputs: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The product."""
        return linear(inputs, self.weight, self.bias)


@dataclass(frozen=True)
class DenseLayer:
    """`LayerWeights` in one dtype, on one device."""

    attention_norm: Float[Tensor, " hidden"]
    query: DenseLinear
    key: DenseLinear
    value: DenseLinear
    query_norm: Float[Tensor, " head"] | None
    key_norm: Float[Tensor, " head"] | None
    output: DenseLinear
    feed_forward_norm: Float[Tensor, " hidden"]
    gate: DenseLinear
    up: DenseLinear
    down: DenseLinear
    output_norm: Float[Tensor, " hidden"] | None
    down_norm: Float[Tensor, " hidden"] | None


@dataclass(frozen=True)
class DenseWeights:
    """`DecoderWeights` in one dtype."""

    embedding: Float[Tensor, "vocab hidden"]
    layers: tuple[DenseLayer, ...]
    final_norm: Float[Tensor, " hidden"]
    head: Float[Tensor, "vocab hidden"]


def dense_weights(
    weights: DecoderWeights, placement: Placement, dtype: torch.dtype
) -> DenseWeights:
    """Dequantise all weights of a model.

    Args:
        weights: Packed.
        placement: Where they go.
        dtype: What they become.

    Returns:
        The weights; the head is the embedding itself where the two are tied, on one device.
    """
    first, last = placement.first, placement.last
    embedding = _dense(weights.embedding, first, dtype)
    is_one = weights.head is weights.embedding and first == last
    return DenseWeights(
        embedding=embedding,
        layers=tuple(
            dense_layer(weights.layers[number], block.device, dtype)
            for block in placement.blocks
            for number in block.layers
        ),
        final_norm=weights.final_norm.to(last, dtype),
        head=embedding if is_one else _dense(weights.head, last, dtype),
    )


def _dense(
    matrix: Matrix, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "outputs inputs"]:
    return matrix.dequantise().to(device, dtype)


def dense_layer(packed: LayerWeights, device: torch.device, dtype: torch.dtype) -> DenseLayer:
    """Dequantise the weights of one layer.

    Args:
        packed: The layer.
        device: Where it goes.
        dtype: What it becomes.
    """

    def vector(values: Float[Tensor, " width"] | None) -> Float[Tensor, " width"] | None:
        return None if values is None else values.to(device, dtype)

    def one(projection: Projection) -> DenseLinear:
        return DenseLinear(_dense(projection.matrix, device, dtype), vector(projection.bias))

    return DenseLayer(
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
        output_norm=vector(packed.output_norm),
        down_norm=vector(packed.down_norm),
    )
