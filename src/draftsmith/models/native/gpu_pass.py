"""One pass of a decoder on a GPU: embeddings, layers, logits, and nothing that the host reads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu import plain, products, sums
from draftsmith.kernels.gpu.attention import Places
from draftsmith.kernels.gpu.peers import Inbox
from draftsmith.kernels.gpu.products import Stream, plan_for
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_layers import MOST_ROWS, GpuLayers, PassInputs, Taps
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.gpu_weights import GpuWeights
from draftsmith.parallel.exchange import Exchange

__all__ = ["MOST_ROWS", "GpuPass", "PassInputs", "Taps"]


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
        self._weights, self._config = weights, config
        self._num_ids, self._exchange = num_ids, exchange
        self._layers = GpuLayers(weights.layers, weights.final_norm, config, store, exchange)
        self._plan = plan_for(*weights.head.shape, is_gated=False)
        assert self._plan.shares == 1
        self._embed, self._product = (
            (products.embed, products.product)
            if weights.embedding.is_cuda
            else (plain.embed, plain.product)
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
        exchange, layers = self._exchange, self._layers
        tables = layers.tables(inputs.slots, num_parts)
        places = Places(inputs.starts, inputs.widths, tables, inputs.tokens.shape[1])
        room = layers.room(inputs.tokens.numel(), num_parts)
        if exchange is not None:
            exchange.begin()
        self._enter(inputs.tokens.view(-1), room.stream)
        layers.launch(room, places, num_parts, taps=taps)
        logits = self._logits(room.stream) if with_logits else None
        if exchange is not None:
            exchange.end()
        return logits

    def _enter(self, tokens: Int[Tensor, " rows"], stream: Stream) -> None:
        """Begin the stream with the embeddings."""
        weights, exchange = self._weights, self._exchange
        norm = weights.layers[0].attention_norm
        if exchange is None:
            self._embed(tokens, weights.embedding, norm, stream, self._layers.tile)
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
                self._plan,
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
