"""One pass on a GPU: the kernels of every layer, launched one after the other."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu import attention, plain, products
from draftsmith.kernels.gpu.attention import PAGE, Heads, Parts, Places
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream, plan_for
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_cache import PagePool
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights

__all__ = ["MOST_ROWS", "GpuPass", "PassInputs"]

MOST_ROWS = 512
"""Of one pass: there is scratch for no more."""


class PassInputs(NamedTuple):
    """What a pass reads on the device, int32."""

    starts: Int[Tensor, " batch"]
    widths: Int[Tensor, " batch"]
    slots: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch width"]


class _Plans(NamedTuple):
    inputs: Plan
    output: Plan
    gate_and_up: Plan
    down: Plan
    head: Plan


class _Room(NamedTuple):
    """What the kernels of one pass write to, layer after layer."""

    stream: Stream
    projected: Float[Tensor, "rows all_heads head"]
    attended: Float[Tensor, "rows heads head"]
    inner: Float[Tensor, "rows intermediate"]
    parts: Parts


class GpuPass:
    """What launches the passes of one model: its kernels, and how each matrix is cut up.

    Args:
        weights: On the device, of one dtype.
        config: The model's shape.
        pool: Where keys and values lie.
    """

    def __init__(self, weights: GpuWeights, config: DecoderConfig, pool: PagePool) -> None:
        self._weights, self._config, self._pool = weights, config, pool
        device = weights.embedding.device
        self._waves = _waves(config, pool.most_pages * PAGE, device)
        self._plans = _plans(weights)
        self._scratch = _scratch(self._plans, config, device)
        kernels = products.embed, products.product, attention.attend
        twins = plain.embed, plain.product, plain.attend
        self._embed, self._product, self._attend = kernels if device.type == "cuda" else twins

    def launch(
        self, inputs: PassInputs, num_parts: int, *, with_logits: bool = True
    ) -> Float[Tensor, "rows vocab"] | None:
        """Launch a pass; nothing is read back, and no number is looked at: it can be captured.

        Args:
            inputs: On the device.
            num_parts: Pages that the longest sequence has in use afterwards, or more.
            with_logits: Whether logits are wanted.

        Returns:
            The logits of every row, float32; None if they are not wanted.
        """
        config, weights = self._config, self._weights
        tables = self._pool.tables.index_select(0, inputs.slots)[:, :num_parts].contiguous()
        places = Places(inputs.starts, inputs.widths, tables, inputs.tokens.shape[1])
        room = self._room(inputs.tokens.numel(), num_parts)
        self._embed(
            inputs.tokens.view(-1),
            weights.embedding,
            weights.layers[0].attention_norm,
            room.stream,
            self._plans.output.outputs,
        )
        after = [*(layer.attention_norm for layer in weights.layers[1:]), weights.final_norm]
        for number, next_norm in enumerate(after):
            self._look_back(number, room, places, num_parts)
            self._feed_forward(weights.layers[number], room, next_norm)
        if not with_logits:
            return None
        logits = weights.embedding.new_empty(
            inputs.tokens.numel(), len(weights.head), dtype=torch.float32
        )
        self._product(
            room.stream.weighted,
            weights.head,
            logits,
            self._plans.head,
            squares=room.stream.squares,
            epsilon=config.norm_epsilon,
        )
        return logits

    def _room(self, rows: int, num_parts: int) -> _Room:
        config, new = self._config, self._weights.embedding.new_empty
        tiles = -(-config.hidden_size // self._plans.output.outputs)
        shape = (num_parts, rows, config.num_heads)
        all_heads = config.num_heads + 2 * config.num_kv_heads
        return _Room(
            Stream(
                new(rows, config.hidden_size),
                new(rows, config.hidden_size),
                new(rows, tiles, dtype=torch.float32),
            ),
            new(rows, all_heads, config.head_size),
            new(rows, config.num_heads, config.head_size),
            new(rows, config.intermediate_size),
            Parts(
                new(*shape, config.head_size, dtype=torch.float32),
                new(*shape, 2, dtype=torch.float32),
            ),
        )

    def _look_back(self, number: int, room: _Room, places: Places, num_parts: int) -> None:
        """The attention of a layer, added to the stream."""
        config, layer, stream = self._config, self._weights.layers[number], room.stream
        rows = len(room.projected)
        self._product(
            stream.weighted,
            layer.inputs,
            room.projected.view(rows, -1),
            self._plans.inputs,
            squares=stream.squares,
            epsilon=config.norm_epsilon,
            bias=layer.inputs_bias,
        )
        query_norm, key_norm = layer.head_norms or (None, None)
        self._attend(
            room.projected,
            room.attended,
            self._pool.layer(number),
            places,
            Heads(*self._waves, query_norm, key_norm, config.norm_epsilon),
            room.parts,
            num_parts,
            scale=config.head_size**-0.5,
            window=config.windows[number],
        )
        self._product(
            room.attended.view(rows, -1),
            layer.output,
            stream.values,
            self._plans.output,
            bias=layer.output_bias,
            residual=stream.values,
            norm=layer.feed_forward_norm,
            to=stream,
            scratch=self._scratch,
        )

    def _feed_forward(
        self, layer: GpuLayer, room: _Room, next_norm: Float[Tensor, " hidden"]
    ) -> None:
        """The feed-forward of a layer, added to the stream; `next_norm` comes after it."""
        stream = room.stream
        self._product(
            stream.weighted,
            layer.gate_and_up,
            room.inner,
            self._plans.gate_and_up,
            squares=stream.squares,
            epsilon=self._config.norm_epsilon,
            bias=layer.gate_and_up_bias,
            gate=self._config.activation,
        )
        self._product(
            room.inner,
            layer.down,
            stream.values,
            self._plans.down,
            bias=layer.down_bias,
            residual=stream.values,
            norm=next_norm,
            to=stream,
            scratch=self._scratch,
        )


def _waves(
    config: DecoderConfig, num_positions: int, device: torch.device
) -> tuple[Float[Tensor, "positions half"], Float[Tensor, "positions half"]]:
    """Cosine and sine of every position, float32, as the plain decoder has them."""
    frequencies = config.rotary.inverse_frequencies.to(device)
    angles = torch.arange(num_positions, device=device).unsqueeze(1) * frequencies
    return angles.cos() * config.rotary.scale, angles.sin() * config.rotary.scale


def _plans(weights: GpuWeights) -> _Plans:
    layer = weights.layers[0]
    gate = layer.gate_and_up
    down = plan_for(*layer.down.shape, is_gated=False)
    output = plan_for(*layer.output.shape, is_gated=False)
    return _Plans(
        plan_for(*layer.inputs.shape, is_gated=False),
        # Both end in the same stream, whose squares are summed tile by tile.
        output._replace(outputs=down.outputs),
        plan_for(gate.shape[0] // 2, gate.shape[1], is_gated=True),
        down,
        plan_for(*weights.head.shape, is_gated=False),
    )


def _scratch(plans: _Plans, config: DecoderConfig, device: torch.device) -> Scratch:
    shares = max(plan.shares for plan in plans)
    tiles = max(-(-config.hidden_size // plan.outputs) for plan in (plans.output, plans.down))
    return Scratch(device, shares * MOST_ROWS * config.hidden_size, tiles * MOST_ROWS // 16)
