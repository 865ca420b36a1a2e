"""The layers of a pass on a GPU: the kernels of each, launched one after the other.

What a stream begins with, and what is made of it at the end, is another's: a decoder's pass
(`gpu_pass`), or a draft head's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu import attention, plain, products
from draftsmith.kernels.gpu.attention import PAGE, Heads, Parts, Places
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream, plan_for
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.gpu_weights import GpuLayer
from draftsmith.parallel.exchange import Exchange

__all__ = ["MOST_ROWS", "GpuLayers", "PassInputs", "Room", "Taps"]

MOST_ROWS = 512
"""Of one pass: there is scratch for no more."""


class PassInputs(NamedTuple):
    """What a pass reads on the device, int32."""

    starts: Int[Tensor, " batch"]
    widths: Int[Tensor, " batch"]
    slots: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch width"]


class Taps(NamedTuple):
    """Where a pass leaves copies of its residual stream on the way."""

    boundaries: tuple[int, ...]
    """0 is the embeddings, b the stream behind b layers, before the final norm."""
    to: Float[Tensor, "rows boundaries hidden"]

    def take(self, boundary: int, stream: Stream) -> None:
        """Copy a stream, as often as it is wanted."""
        for place, wanted in enumerate(self.boundaries):
            if wanted == boundary:
                self.to[:, place].copy_(stream.values)


class _Plans(NamedTuple):
    first: Plan
    """Of the inputs of the first layer, which may be wider than those of the others."""
    inputs: Plan
    output: Plan
    gate_and_up: Plan
    down: Plan


class Room(NamedTuple):
    """What the kernels of one pass write to, layer after layer."""

    stream: Stream
    projected: Float[Tensor, "rows all_heads head"]
    attended: Float[Tensor, "rows heads head"]
    inner: Float[Tensor, "rows intermediate"]
    parts: Parts


class GpuLayers:
    """What launches the layers of one model: their kernels, and how each matrix is cut up.

    Args:
        layers: On the device, of one dtype: this rank's part of each.
        final_norm: The weight of the norm behind the last.
        config: The shape of what this rank has.
        store: Where keys and values lie.
        exchange: What joins this rank's part to the others'; None if there are no others.
    """

    def __init__(
        self,
        layers: Sequence[GpuLayer],
        final_norm: Float[Tensor, " hidden"],
        config: DecoderConfig,
        store: PageStore,
        exchange: Exchange | None = None,
    ) -> None:
        self._layers, self._config, self._store = layers, config, store
        self._exchange = exchange
        self._norms_after = [*(layer.attention_norm for layer in layers[1:]), final_norm]
        self._new = final_norm.new_empty
        device = final_norm.device
        self._waves = _waves(config, store.most_pages * PAGE, device)
        self._plans = _plans(layers)
        self.tile = self._plans.output.outputs if exchange is None else exchange.tile
        """Neighbours in the stream whose squares are summed together."""
        self._scratch = _scratch(self._plans, layers, device)
        self._product, self._attend = (
            (products.product, attention.attend)
            if device.type == "cuda"
            else (plain.product, plain.attend)
        )

    def tables(self, slots: Int[Tensor, " batch"], num_parts: int) -> Int[Tensor, "batch parts"]:
        """The pages of some sequences.

        Args:
            slots: Theirs.
            num_parts: Pages that the longest has in use after a pass, or more.
        """
        return self._store.tables.index_select(0, slots)[:, :num_parts].contiguous()

    def room(self, rows: int, num_parts: int) -> Room:
        """What a pass of so many rows writes to."""
        config, new = self._config, self._new
        tiles = -(-config.hidden_size // self.tile)
        shape = (num_parts, rows, config.num_heads)
        all_heads = config.num_heads + 2 * config.num_kv_heads
        return Room(
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

    def launch(
        self,
        room: Room,
        places: Places,
        num_parts: int,
        *,
        first: Float[Tensor, "rows inputs"] | None = None,
        taps: Taps | None = None,
    ) -> None:
        """Launch all layers over a stream that was begun.

        Args:
            room: Of the pass; its stream is moved on.
            places: Whose rows they are.
            num_parts: Pages that the longest sequence has in use afterwards, or more.
            first: What the first layer's queries, keys and values are made of, normed; None is the
                stream, behind the norm of that layer.
            taps: Which streams are wanted, and where; None wants none.
        """
        if taps is not None:
            taps.take(0, room.stream)
        for number, next_norm in enumerate(self._norms_after):
            self._look_back(number, room, places, num_parts, None if number else first)
            self._feed_forward(self._layers[number], room, next_norm)
            if taps is not None:
                taps.take(number + 1, room.stream)

    def _add(
        self,
        x: Float[Tensor, "rows inputs"],
        weight: Float[Tensor, "hidden inputs"],
        plan: Plan,
        bias: Float[Tensor, " hidden"] | None,
        norm: Float[Tensor, " hidden"],
        stream: Stream,
    ) -> None:
        """Add a product to the stream; `norm` comes after it."""
        exchange = self._exchange
        if exchange is None:
            self._product(
                x,
                weight,
                stream.values,
                plan,
                bias=bias,
                residual=stream.values,
                norm=norm,
                to=stream,
                scratch=self._scratch,
            )
            return
        mine = exchange.room(*stream.values.shape)
        self._product(x, weight, mine, plan, scratch=self._scratch)
        exchange.add_up(mine, norm=norm, to=stream, bias=bias, residual=stream.values)

    def _look_back(
        self,
        number: int,
        room: Room,
        places: Places,
        num_parts: int,
        first: Float[Tensor, "rows inputs"] | None,
    ) -> None:
        """The attention of a layer, added to the stream."""
        config, layer, stream = self._config, self._layers[number], room.stream
        rows = len(room.projected)
        self._product(
            stream.weighted if first is None else first,
            layer.inputs,
            room.projected.view(rows, -1),
            self._plans.inputs if number else self._plans.first,
            squares=stream.squares if first is None else None,
            epsilon=config.norm_epsilon,
            bias=layer.inputs_bias,
            scratch=self._scratch,
        )
        query_norm, key_norm = layer.head_norms or (None, None)
        self._attend(
            room.projected,
            room.attended,
            self._store.layer(number),
            places,
            Heads(*self._waves, query_norm, key_norm, config.norm_epsilon),
            room.parts,
            num_parts,
            scale=config.head_size**-0.5,
            window=config.windows[number],
        )
        self._add(
            room.attended.view(rows, -1),
            layer.output,
            self._plans.output,
            layer.output_bias,
            layer.feed_forward_norm,
            stream,
        )

    def _feed_forward(
        self, layer: GpuLayer, room: Room, next_norm: Float[Tensor, " hidden"]
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
        self._add(room.inner, layer.down, self._plans.down, layer.down_bias, next_norm, stream)


def _waves(
    config: DecoderConfig, num_positions: int, device: torch.device
) -> tuple[Float[Tensor, "positions half"], Float[Tensor, "positions half"]]:
    """Cosine and sine of every position, float32, as the plain decoder has them."""
    frequencies = config.rotary.inverse_frequencies.to(device)
    angles = torch.arange(num_positions, device=device).unsqueeze(1) * frequencies
    return angles.cos() * config.rotary.scale, angles.sin() * config.rotary.scale


def _plans(layers: Sequence[GpuLayer]) -> _Plans:
    first, last = layers[0], layers[-1]
    gate = first.gate_and_up
    down = plan_for(*first.down.shape, is_gated=False)
    output = plan_for(*first.output.shape, is_gated=False)
    plans = _Plans(
        plan_for(*first.inputs.shape, is_gated=False),
        plan_for(*last.inputs.shape, is_gated=False),
        # Both end in the same stream, whose squares are summed tile by tile.
        output._replace(outputs=down.outputs),
        plan_for(gate.shape[0] // 2, gate.shape[1], is_gated=True),
        down,
    )
    assert plans.gate_and_up.shares == 1
    return plans


def _scratch(plans: _Plans, layers: Sequence[GpuLayer], device: torch.device) -> Scratch:
    """Room for the products whose inputs are shared; those of a gate never are."""
    first, last = layers[0], layers[-1]
    shared = zip(
        (plans.first, plans.inputs, plans.output, plans.down),
        (first.inputs, last.inputs, first.output, first.down),
        strict=True,
    )
    sizes = [(plan.shares * len(one), -(-len(one) // plan.outputs)) for plan, one in shared]
    floats, tiles = (max(column) for column in zip(*sizes, strict=True))
    return Scratch(device, floats * MOST_ROWS, tiles * MOST_ROWS // 16)
