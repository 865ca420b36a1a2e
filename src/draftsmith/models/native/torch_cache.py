"""What the plain decoder remembers: dense buffers beside its layers, finite whatever comes."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.models.contract import CountedCache
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.placement import Placement

__all__ = ["LayerViews", "TorchCache"]

_MIN_SLOTS = 256
_FEW_PLACES = 64
"""A pass over fewer is as long as its kernels are many: what it wrote is looked at together."""


class LayerViews(NamedTuple):
    """One layer of a cache."""

    keys: Float[Tensor, "rows slots heads head"]
    values: Float[Tensor, "rows slots heads head"]
    places: Float[Tensor, "2 places heads head"]
    """Both, over the slots of all rows."""


class TorchCache(CountedCache):
    """Keys and values of every layer: row b's token i lies in slot i of its own buffer.

    Rollback is a shorter length: a rejected token's slot is masked until it is overwritten.
    """

    def __init__(self, config: DecoderConfig, placement: Placement, dtype: torch.dtype) -> None:
        super().__init__()
        rest = (2, 0, _MIN_SLOTS, config.num_kv_heads, config.head_size)
        self.buffers = [
            torch.zeros((len(block.layers), *rest), device=block.device, dtype=dtype)
            for block in placement.blocks
        ]
        """Of each block, `[layers, keys and values, rows, slots, heads, elements]`, all finite."""
        self.is_finite = torch.ones(0, _MIN_SLOTS, dtype=torch.bool, device=placement.last)
        """`[rows, slots]`: whether all layers hold what was put there, or zeros for it."""
        self.layers = self._views()
        """The buffers, layer by layer: a view costs as much time as a small kernel."""

    def reserve(self, num_rows: int, num_slots: int) -> None:
        """Make room for so many rows of so many tokens."""
        held_rows, held_slots = self.is_finite.shape
        if num_rows <= held_rows and num_slots <= held_slots:
            return
        rows = max(num_rows, held_rows)
        slots = held_slots if num_slots <= held_slots else max(num_slots, 2 * held_slots)
        self.buffers = [_grown(buffer, rows, slots) for buffer in self.buffers]
        flags = self.is_finite.new_ones(rows, slots)
        flags[:held_rows, :held_slots] = self.is_finite
        self.is_finite = flags
        self.layers = self._views()

    @torch.inference_mode()
    def _move(self, row: int, source: int, target: int) -> None:
        for buffer in self.buffers:
            buffer[:, :, row, target] = buffer[:, :, row, source]
        self.is_finite[row, target] = self.is_finite[row, source]

    def places(
        self, rows: Int[Tensor, " batch"], slots: Int[Tensor, "batch width"]
    ) -> Int[Tensor, " places"]:
        """The numbers of slots, counted over all rows."""
        return (rows.unsqueeze(1) * self.is_finite.shape[1] + slots).flatten()

    def write(
        self,
        layer: int,
        places: Int[Tensor, " places"],
        new: Float[Tensor, "2 batch width heads head"],
    ) -> Float[Tensor, "parts batch width heads_or_1 head_or_1"]:
        """Put new keys and values of a layer into their slots; zeros for what is not finite.

        A masked slot counts as zero times what lies in it, so that an infinity would be NaN to
        those who must not see it. `lost` says who must.

        Returns:
            What `lost` needs to know of this layer.
        """
        held = new.nan_to_num(0.0, 0.0, 0.0).flatten(1, 2)
        self.layers[layer].places.index_copy_(1, places, held)
        if len(places) <= _FEW_PLACES:
            return new
        return new.abs().amax((0, 3, 4), keepdim=True)

    def lost(
        self,
        rows: Int[Tensor, " batch"],
        places: Int[Tensor, " places"],
        written: Sequence[Sequence[Float[Tensor, "parts batch width heads_or_1 head_or_1"]]],
        past: Bool[Tensor, "batch width slots"],
    ) -> Bool[Tensor, "batch width"]:
        """Which tokens are, or come after, one of which a layer could not hold what it wrote.

        Args:
            rows: Of the cache; all but `written` beside the last layer.
            places: What all layers have written to.
            written: What `write` returned, layer by layer of each block.
            past: Which slots hold a token and those before it.
        """
        blocks = [torch.stack(list(one)).abs().amax((0, 1, 4, 5)) for one in written]
        largest = reduce(torch.maximum, [one.to(rows.device) for one in blocks])
        self.is_finite.view(-1).index_copy_(0, places, (largest < torch.inf).flatten())
        return (past > self.is_finite[rows, None, : past.shape[-1]]).any(-1)

    def _views(self) -> list[LayerViews]:
        return [
            LayerViews(both[0], both[1], both.flatten(1, 2))
            for buffer in self.buffers
            for both in buffer
        ]


def _grown(
    buffer: Float[Tensor, "layers 2 held_rows held_slots heads head"], rows: int, slots: int
) -> Float[Tensor, "layers 2 rows slots heads head"]:
    """The buffer with more rows and slots, its content kept."""
    layers, both, held_rows, held_slots, *rest = buffer.shape
    # Zeros: a masked slot still counts as zero times what lies in it, and that must be 0.
    grown = buffer.new_zeros(layers, both, rows, slots, *rest)
    grown[:, :, :held_rows, :held_slots] = buffer
    return grown
