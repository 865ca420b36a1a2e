"""One pass on a GPU: the kernels of every layer, launched one after the other."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu import attention, plain, products, sums
from draftsmith.kernels.gpu.attention import PAGE, Heads, Parts, Places
from draftsmith.kernels.gpu.peers import Inbox
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream, plan_for
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights
from draftsmith.parallel.exchange import Exchange

__all__ = ["MOST_ROWS", "GpuPass", "PassInputs", "Taps"]

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
        weights: On the device, of one dtype: this rank's.
        config: The shape of what this rank has.
        store: Where keys and values lie.
        num_ids: Columns of the logits, of all ranks together.
        exchange: What joins this rank's part to the others'; None if there are no others.
    """

    def __init__(
        self,
        weights: GpuWeights,
        config: DecoderConfig,
        store: PageStore,
        num_ids: int,
        exchange: Exchange | None = None,
    ) -> None:
        self._weights, self._config, self._store = weights, config, store
        self._num_ids, self._exchange = num_ids, exchange
        device = weights.embedding.device
        self._waves = _waves(config, store.most_pages * PAGE, device)
        self._plans = _plans(weights)
        self._tile = self._plans.output.outputs if exchange is None else exchange.tile
        self._scratch = _scratch(self._plans, weights)
        self._embed, self._product, self._attend = (
            (products.embed, products.product, attention.attend)
            if device.type == "cuda"
            else (plain.embed, plain.product, plain.attend)
        )

    def launch(
        self,
        inputs: PassInputs,
        num_parts: int,
        *,
        with_logits: bool = True,
        taps: Taps | None = None,
    ) -> Float[Tensor, "rows vocab"] | None:
        """Launch a pass; nothing is read back, and no number is looked at: it can be captured.

        Args:
            inputs: On the device.
            num_parts: Pages that the longest sequence has in use afterwards, or more.
            with_logits: Whether logits are wanted.
            taps: Which residual streams are wanted, and where; None wants none.

        Returns:
            The logits of every row, float32; None if they are not wanted.
        """
        weights, exchange = self._weights, self._exchange
        tables = self._store.tables.index_select(0, inputs.slots)[:, :num_parts].contiguous()
        places = Places(inputs.starts, inputs.widths, tables, inputs.tokens.shape[1])
        room = self._room(inputs.tokens.numel(), num_parts)
        if exchange is not None:
            exchange.begin()
        self._enter(inputs.tokens.view(-1), room.stream)
        if taps is not None:
            taps.take(0, room.stream)
        after = [*(layer.attention_norm for layer in weights.layers[1:]), weights.final_norm]
        for number, next_norm in enumerate(after):
            self._look_back(number, room, places, num_parts)
            self._feed_forward(weights.layers[number], room, next_norm)
            if taps is not None:
                taps.take(number + 1, room.stream)
        logits = self._logits(room.stream) if with_logits else None
        if exchange is not None:
            exchange.end()
        return logits

    def _enter(self, tokens: Int[Tensor, " rows"], stream: Stream) -> None:
        """Begin the stream with the embeddings."""
        weights, exchange = self._weights, self._exchange
        norm = weights.layers[0].attention_norm
        if exchange is None:
            self._embed(tokens, weights.embedding, norm, stream, self._tile)
            return
        mine = exchange.room(*stream.values.shape)
        embed_part = sums.embed_part if isinstance(mine, Inbox) else plain.embed_part
        embed_part(tokens, weights.embedding, exchange.rank * len(weights.embedding), mine)
        exchange.add_up(mine, norm=norm, to=stream)

    def _logits(self, stream: Stream) -> Float[Tensor, "rows ids"]:
        """Of every row, float32."""
        head, exchange, rows = self._weights.head, self._exchange, len(stream.values)
        logits = head.new_empty(rows, self._num_ids, dtype=torch.float32)

        def product(some: slice, out: Float[Tensor, "some ids"] | Inbox) -> None:
            self._product(
                stream.weighted[some],
                head,
                out,
                self._plans.head,
                squares=stream.squares[some],
                epsilon=self._config.norm_epsilon,
            )

        if exchange is None:
            product(slice(None), logits)
            return logits
        step = exchange.most_rows(len(head))
        for first in range(0, rows, step):
            some = slice(first, min(first + step, rows))
            mine = exchange.room(some.stop - first, len(head))
            product(some, mine)
            exchange.gather(mine, len(head), logits[some])
        return logits

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

    def _room(self, rows: int, num_parts: int) -> _Room:
        config, new = self._config, self._weights.embedding.new_empty
        tiles = -(-config.hidden_size // self._tile)
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
        self._add(room.inner, layer.down, self._plans.down, layer.down_bias, next_norm, stream)


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


def _scratch(plans: _Plans, weights: GpuWeights) -> Scratch:
    """Room for the products whose inputs are shared; those of a gate and of the head never are."""
    layer = weights.layers[0]
    shared = zip(
        (plans.inputs, plans.output, plans.down),
        (layer.inputs, layer.output, layer.down),
        strict=True,
    )
    sizes = [(plan.shares * len(one), -(-len(one) // plan.outputs)) for plan, one in shared]
    assert plans.gate_and_up.shares == plans.head.shares == 1
    floats, tiles = (max(column) for column in zip(*sizes, strict=True))
    return Scratch(weights.embedding.device, floats * MOST_ROWS, tiles * MOST_ROWS // 16)
