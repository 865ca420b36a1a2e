"""A `transformers` cache with ragged rows: keys and values stay where they were written.

Row b's token i lies in slot i of its own buffer. A pass shows the model an ordinary batch that
is padded on the left: each layer gathers its rows so that they end in the same column. Any model
that can generate from a left-padded batch can therefore run ragged; distances between tokens are
kept, so relative position biases and sliding windows stay right. Rejected tokens are simply
overwritten. Nothing is ever dropped, so every rollback is possible.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache as TransformersCache
from transformers.cache_utils import CacheLayerMixin

from draftsmith.models.contract import CountedCache

__all__ = ["PassLayout", "RaggedCache", "RaggedLayer"]

_MIN_SLOTS = 256


class PassLayout:
    """Where the rows of the pass in hand lie; shared by all layers of a cache."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.past: list[int] = []
        """Tokens that each row of the pass holds already."""
        self.width = 0
        """New columns of the pass."""
        self.gather: tuple[Tensor, Tensor] | None = None
        """(row, slot) indices for the right-aligned view; None when the rows need none."""
        self.scatter: tuple[Tensor, Tensor] | None = None
        self.is_contiguous = False
        """Whether the model is shown copies, for models that take views apart."""

    @property
    def max_past(self) -> int:
        """Columns before the new ones, left padding included."""
        return max(self.past, default=0)

    @property
    def is_aligned(self) -> bool:
        """Whether all rows hold the same number of tokens, so that nothing is padded."""
        return min(self.past) == self.max_past

    def begin(self, rows: Sequence[int], past: Sequence[int], width: int, device: Any) -> None:
        """Set up a pass of `width` new columns over `rows`."""
        self.rows, self.past, self.width = list(rows), list(past), width
        is_block = self.rows == list(range(self.rows[0], self.rows[0] + len(self.rows)))
        self.gather = self.scatter = None
        if is_block and self.is_aligned:
            return
        row = torch.tensor(self.rows, device=device).unsqueeze(1)
        start = torch.tensor(self.past, device=device).unsqueeze(1)
        columns = torch.arange(self.max_past + width, device=device)
        # Left padding shows slot 0 over and over; the attention mask hides it.
        slots = (columns - (self.max_past - start)).clamp(min=0)
        self.gather = (row, slots)
        self.scatter = (row, start + torch.arange(width, device=device))


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values, `[rows, slots, heads, dim]`."""

    is_sliding = False
    is_croppable = True

    def __init__(self, layout: PassLayout, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout = layout
        self._keys = self._values = torch.empty(0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take dtype, device and head shapes from the first pass."""
        self._keys, self._values = (
            states.new_empty(0, _MIN_SLOTS, states.shape[1], states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns; return all columns of the pass, right-aligned."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        layout = self._layout
        self._reserve(max(layout.rows) + 1, layout.max_past + layout.width)
        keys, values = (
            self._write(self._keys, key_states),
            self._write(self._values, value_states),
        )
        return (keys.contiguous(), values.contiguous()) if layout.is_contiguous else (keys, values)

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        layout, states = self._layout, states.transpose(1, 2)
        if layout.gather is None:
            first, past = layout.rows[0], layout.max_past
            view = buffer[first : first + len(layout.rows), : past + layout.width]
            view[:, past:] = states
            return view.transpose(1, 2)
        assert layout.scatter is not None
        buffer[layout.scatter] = states
        return buffer[layout.gather].transpose(1, 2)

    def _reserve(self, rows: int, slots: int) -> None:
        held_rows, held_slots = self._keys.shape[:2]
        if rows <= held_rows and slots <= held_slots:
            return
        slots = held_slots if slots <= held_slots else max(slots, 2 * held_slots)
        self._keys, self._values = (
            _grown(buffer, max(rows, held_rows), slots) for buffer in (self._keys, self._values)
        )

    def get_seq_length(self) -> int:
        """Columns before the new ones."""
        return self._layout.max_past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention sees, and the first one's number."""
        return self._layout.max_past + self._layout.width, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class RaggedCache(CountedCache):
    """Rows over `RaggedLayer`s, and the `transformers` cache object that models take."""

    def __init__(self) -> None:
        super().__init__()
        self.layout = PassLayout()
        layer: Any = partial(RaggedLayer, self.layout)
        self.for_model = TransformersCache(layer_class_to_replicate=layer)


def _grown(buffer: Tensor, rows: int, slots: int) -> Tensor:
    """The buffer with more rows and slots, its content kept."""
    # Zeros, not empty: padding must never show attention a NaN.
    grown = buffer.new_zeros(rows, slots, *buffer.shape[2:])
    grown[: buffer.shape[0], : buffer.shape[1]] = buffer
    return grown
