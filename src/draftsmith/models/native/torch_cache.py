"""What the plain decoder remembers: dense buffers on any device, finite whatever is put there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.models.contract import CountedCache
from draftsmith.models.native.config import DecoderConfig

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

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (config.num_layers, 2, 0, _MIN_SLOTS, config.num_kv_heads, config.head_size)
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        """`[layers, keys and values, rows, slots, heads, elements]`, all finite."""
        self.is_finite = self._flags()
        """`[rows, slots]`: whether all layers hold what was put there, or zeros for it."""
        self.layers = self._views()
        """The buffer, layer by layer: a view costs as much time as a small kernel."""

    def reserve(self, num_rows: int, num_slots: int) -> None:
        """Make room for so many rows of so many tokens."""
        held_rows, held_slots = self.buffer.shape[2:4]
        if num_rows <= held_rows and num_slots <= held_slots:
            return
        slots = held_slots if num_slots <= held_slots else max(num_slots, 2 * held_slots)
        layers, both, _, _, *rest = self.buffer.shape
        # Zeros: a masked slot still counts as zero times what lies in it, and that must be 0.
        grown = self.buffer.new_zeros(layers, both, max(num_rows, held_rows), slots, *rest)
        grown[:, :, :held_rows, :held_slots] = self.buffer
        self.buffer = grown
        flags = self._flags()
        flags[:held_rows, :held_slots] = self.is_finite
        self.is_finite = flags
        self.layers = self._views()

    @torch.inference_mode()
    def _move(self, row: int, source: int, target: int) -> None:
        self.buffer[:, :, row, target] = self.buffer[:, :, row, source]
        self.is_finite[row, target] = self.is_finite[row, source]

    def places(
        self, rows: Int[Tensor, " batch"], slots: Int[Tensor, "batch width"]
    ) -> Int[Tensor, " places"]:
        """The numbers of slots, counted over all rows."""
        return (rows.unsqueeze(1) * self.buffer.shape[3] + slots).flatten()

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
        written: Sequence[Float[Tensor, "parts batch width heads_or_1 head_or_1"]],
        past: Bool[Tensor, "batch width slots"],
    ) -> Bool[Tensor, "batch width"]:
        """Which tokens are, or come after, one of which a layer could not hold what it wrote.

        Args:
            rows: Of the cache.
            places: What all layers have written to.
            written: What `write` returned, layer by layer.
            past: Which slots hold a token and those before it.
        """
        largest = torch.stack(list(written)).abs().amax((0, 1, 4, 5))
        self.is_finite.view(-1).index_copy_(0, places, (largest < torch.inf).flatten())
        return (past > self.is_finite[rows, None, : past.shape[-1]]).any(-1)

    def _views(self) -> list["LayerViews"]:
        return [LayerViews(both[0], both[1], both.flatten(1, 2)) for both in self.buffer]

    def _flags(self) -> Bool[Tensor, "rows slots"]:
        return torch.ones_like(self.buffer[0, 0, :, :, 0, 0], dtype=torch.bool)
