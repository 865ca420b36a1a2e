"""Decoders of a GPU that heads of `kit` are made for, with random weights."""
# pyright: basic

from functools import cache
from typing import Any

import torch

from draftsmith.drafters.heads import HeadConfig
from draftsmith.drafters.heads.gpu_head import GpuHead
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights
from draftsmith.models.native.rotary import scaled_rotary
from tests.drafters.heads import kit
from tests.kernels.gpu.device import DEVICE

HEADS, HEAD = 4, 8


@cache
def target() -> GpuDecoder:
    """With the tables of `kit.target`, in float32."""
    width, inner = kit.WIDTH, 48
    config = DecoderConfig(
        architecture="llama",
        num_layers=kit.LAYERS,
        hidden_size=width,
        num_heads=HEADS,
        num_kv_heads=2,
        head_size=HEAD,
        intermediate_size=inner,
        vocab_size=kit.VOCAB,
        context_length=512,
        norm_epsilon=1e-5,
        rotary=scaled_rotary(10_000.0, HEAD, 512, {}),
        windows=(None,) * kit.LAYERS,
        eos_token_ids=(),
    )
    chance = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=chance) * 0.3).to(DEVICE)

    def layer() -> GpuLayer:
        one = torch.ones(width, device=DEVICE)
        return GpuLayer(
            attention_norm=one,
            inputs=normal((HEADS + 4) * HEAD, width),
            inputs_bias=None,
            head_norms=None,
            output=normal(width, HEADS * HEAD),
            output_bias=None,
            feed_forward_norm=one,
            gate_and_up=normal(2 * inner, width),
            gate_and_up_bias=None,
            down=normal(width, inner),
            down_bias=None,
        )

    weights = GpuWeights(
        embedding=kit.table(5).to(DEVICE),
        layers=tuple(layer() for _ in range(kit.LAYERS)),
        final_norm=torch.ones(width, device=DEVICE),
        head=kit.table(6).to(DEVICE),
    )
    return GpuDecoder.on_weights(weights, config, "the target")


def head(config: HeadConfig, **changes: Any) -> GpuHead:
    """Of random weights."""
    return GpuHead(config, kit.weights(config, **changes), target())
