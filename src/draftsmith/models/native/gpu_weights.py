"""A decoder's weights as the kernels of a GPU want them: neighbours in one matrix, one dtype."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = ["GpuLayer", "GpuWeights", "on_gpu"]


@dataclass(frozen=True)
class GpuLayer:
    """One layer."""

    attention_norm: Float[Tensor, " hidden"]
    inputs: Float[Tensor, "query_key_value seen"]
    """Over the stream; the first layer of a draft head sees two rows side by side."""
    inputs_bias: Float[Tensor, " query_key_value"] | None
    head_norms: tuple[Float[Tensor, " head"], Float[Tensor, " head"]] | None
    """Of queries and of keys."""
    output: Float[Tensor, "hidden heads_head"]
    output_bias: Float[Tensor, " hidden"] | None
    feed_forward_norm: Float[Tensor, " hidden"]
    gate_and_up: Float[Tensor, "twice_intermediate hidden"]
    gate_and_up_bias: Float[Tensor, " twice_intermediate"] | None
    down: Float[Tensor, "hidden intermediate"]
    down_bias: Float[Tensor, " hidden"] | None


@dataclass(frozen=True)
class GpuWeights:
    """All of them."""

    embedding: Float[Tensor, "vocab hidden"]
    layers: tuple[GpuLayer, ...]
    final_norm: Float[Tensor, " hidden"]
    head: Float[Tensor, "head_ids hidden"]
    """The embedding itself where the two are tied; of a draft perhaps its first rows alone."""

    def with_head_of(self, num_ids: int) -> "GpuWeights":
        """The same with logits of the first ids alone, or of all where there are no more."""
        return replace(self, head=self.head[:num_ids])

    @property
    def num_bytes_per_pass(self) -> int:
        """Bytes of weights that a pass reads, however many rows it has."""
        matrices = [
            matrix
            for layer in self.layers
            for matrix in (layer.inputs, layer.output, layer.gate_and_up, layer.down)
        ]
        return sum(matrix.nbytes for matrix in (*matrices, self.head))


def on_gpu(weights: DecoderWeights, device: torch.device, dtype: torch.dtype) -> GpuWeights:
    """Dequantise packed weights, matrix by matrix, onto a device.

    Args:
        weights: As `read_gguf` and `read_folder` give them.
        device: Where they go.
        dtype: What they become.

    Returns:
        The weights.
    """
    embedding = weights.embedding.dequantise().to(device, dtype)
    is_tied = weights.head is weights.embedding
    return GpuWeights(
        embedding=embedding,
        layers=tuple(_layer(layer, device, dtype) for layer in weights.layers),
        final_norm=weights.final_norm.to(device, dtype),
        head=embedding if is_tied else weights.head.dequantise().to(device, dtype),
    )


def _layer(layer: LayerWeights, device: torch.device, dtype: torch.dtype) -> GpuLayer:
    def vector(values: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
        return values.to(device, dtype)

    heads = None
    if layer.query_norm is not None and layer.key_norm is not None:
        heads = vector(layer.query_norm), vector(layer.key_norm)
    inputs, inputs_bias = _joined((layer.query, layer.key, layer.value), device, dtype)
    output, output_bias = _joined((layer.output,), device, dtype)
    gate, gate_bias = _joined((layer.gate, layer.up), device, dtype)
    down, down_bias = _joined((layer.down,), device, dtype)
    return GpuLayer(
        attention_norm=vector(layer.attention_norm),
        inputs=inputs,
        inputs_bias=inputs_bias,
        head_norms=heads,
        output=output,
        output_bias=output_bias,
        feed_forward_norm=vector(layer.feed_forward_norm),
        gate_and_up=gate,
        gate_and_up_bias=gate_bias,
        down=down,
        down_bias=down_bias,
    )


def _joined(
    projections: Sequence[Projection], device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"] | None]:
    """One matrix under the other, and their biases; one that lacks a bias has zeros."""
    outputs = [one.matrix.num_outputs for one in projections]
    joined = torch.empty(sum(outputs), projections[0].matrix.num_inputs, device=device, dtype=dtype)
    start = 0
    for one, count in zip(projections, outputs, strict=True):
        joined[start : start + count] = one.matrix.dequantise().to(device, dtype)
        start += count
    if all(one.bias is None for one in projections):
        return joined, None
    biases = [
        torch.zeros(count) if one.bias is None else one.bias
        for one, count in zip(projections, outputs, strict=True)
    ]
    return joined, torch.cat(biases).to(device, dtype)
