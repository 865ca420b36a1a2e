"""Models of random weights over several GPUs: cut up from whole ones, or made rank by rank."""

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu_models import SHAPES, random_weights, shape
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights

__all__ = ["CHEN", "cut_config", "cut_weights", "part_of_random"]

CHEN = {
    "target": shape((40, 8192, 64, 8, 128, 28_672, 128_256), 8192),
    "wide": shape((8, 5120, 40, 8, 128, 15_360, 128_256), 8192, is_tied=True),
    "deep": shape((24, 3072, 24, 8, 128, 8704, 128_256), 8192, is_tied=True),
    "8B": SHAPES["8B"],
}
"""Llama 3 70B cut to 40 of its 80 layers; drafts of a twelfth of its parameters, of Chen et al.'s
proportions (8 wide layers) and of as many layers as a model of that size has elsewhere."""


def cut_config(config: DecoderConfig, size: int) -> DecoderConfig:
    """The shape of one rank's part."""
    return replace(
        config,
        num_heads=config.num_heads // size,
        num_kv_heads=config.num_kv_heads // size,
        intermediate_size=config.intermediate_size // size,
    )


def part_of_random(config: DecoderConfig, rank: int, size: int) -> GpuWeights:
    """A rank's part of a model of random weights, of which nobody ever has the whole."""
    part = replace(cut_config(config, size), vocab_size=-(-config.vocab_size // size))
    held = random_weights(part, seed=rank)
    # What comes of a sum over the ranks is as large as what comes of one.
    for layer in held.layers:
        for matrix in (layer.output, layer.down):
            matrix.mul_(size**-0.5)
    return held


def cut_weights(weights: GpuWeights, config: DecoderConfig, rank: int, size: int) -> GpuWeights:
    """A rank's part of a model that is there whole."""

    def rows(matrix: Tensor) -> Tensor:
        return matrix.chunk(size)[rank].contiguous()

    def columns(matrix: Tensor) -> Tensor:
        return matrix.chunk(size, dim=1)[rank].contiguous()

    def blocks(matrix: Tensor | None, sizes: tuple[int, ...]) -> Tensor | None:
        if matrix is None:
            return None
        return torch.cat([rows(one) for one in matrix.split(sizes)])

    own, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    inner = config.intermediate_size

    def layer(of: GpuLayer) -> GpuLayer:
        inputs, gates = blocks(of.inputs, (own, kv, kv)), blocks(of.gate_and_up, (inner, inner))
        assert inputs is not None
        assert gates is not None
        return replace(
            of,
            inputs=inputs,
            inputs_bias=blocks(of.inputs_bias, (own, kv, kv)),
            output=columns(of.output),
            gate_and_up=gates,
            gate_and_up_bias=blocks(of.gate_and_up_bias, (inner, inner)),
            down=columns(of.down),
        )

    embedding = rows(weights.embedding)
    head = embedding if weights.head is weights.embedding else rows(weights.head)
    return GpuWeights(embedding, tuple(map(layer, weights.layers)), weights.final_norm, head)
