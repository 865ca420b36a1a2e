"""A `transformers` cache with ragged rows: keys and values stay where they were written.

Row b's token i lies in slot i of its own buffer. A pass shows the model an ordinary batch that
is padded on the left: each layer gathers its rows so that they end in the same column. Any model
that can generate from a left-padded batch can therefore run ragged; distances between tokens are
kept, so relative position biases and sliding windows stay right. Rejected tokens are simply
overwritten. Nothing is ever dropped, so every rollback is possible.

What is not finite is held as zeros: a masked slot counts as zero times what lies in it, so that
the infinity of a wrong draft would be NaN to the tokens before it. `RaggedCache.lost` says for whom
it is.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache as TransformersCache
from transformers.cache_utils import CacheLayerMixin

from draftsmith.models.contract import CountedCache

__all__ = ["PassLayout", "RaggedCache", "RaggedLayer"]

_MIN_SLOTS = 256
_FEW_COLUMNS = 64
"""Of fewer, what all layers wrote is looked at together; of more it would be too much to keep."""


class _Places(NamedTuple):
    """(row, slot) indices of a pass."""

    gather: tuple[Tensor, Tensor]
    """For the right-aligned view."""
    scatter: tuple[Tensor, Tensor]
    """Of the new columns."""


class PassLayout:
    """Where the rows of the pass in hand lie; shared by all layers of a cache."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.past: list[int] = []
        """Tokens that each row of the pass holds already."""
        self.width = 0
        """New columns of the pass."""
        self._places: dict[torch.device, _Places] = {}
        """Of rows that need some, on each device that has asked, the pass's own first."""
        self.is_contiguous = False
        """Whether the model is shown copies, for models that take views apart."""
        self.written: list[Tensor] = []
        """New keys and values, layer by layer; of many columns only the largest of each."""

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
        self.written = []
        self._places = {}
        if is_block and self.is_aligned:
            return
        row = torch.tensor(self.rows, device=device).unsqueeze(1)
        start = torch.tensor(self.past, device=device).unsqueeze(1)
        columns = torch.arange(self.max_past + width, device=device)
        # Left padding shows slot 0 over and over; the attention mask hides it.
        slots = (columns - (self.max_past - start)).clamp(min=0)
        written = start + torch.arange(width, device=device)
        self._places[row.device] = _Places((row, slots), (row, written))

    def places(self, device: torch.device) -> _Places | None:
        """The pass's indices beside a layer's buffers; None where its rows are a block of them."""
        if not self._places:
            return None
        if device not in self._places:
            (rows, slots), (_, written) = next(iter(self._places.values()))
            rows = rows.to(device)
            moved = _Places((rows, slots.to(device)), (rows, written.to(device)))
            self._places[device] = moved
        return self._places[device]


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
        layout.written += [_noted(key_states), _noted(value_states)]
        keys, values = (
            self._write(self._keys, key_states),
            self._write(self._values, value_states),
        )
        return (keys.contiguous(), values.contiguous()) if layout.is_contiguous else (keys, values)

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        layout, states = self._layout, states.transpose(1, 2)
        places = layout.places(buffer.device)
        if places is None:
            first, past = layout.rows[0], layout.max_past
            view = buffer[first : first + len(layout.rows), : past + layout.width]
            torch.nan_to_num(states, 0.0, 0.0, 0.0, out=view[:, past:])
            return view.transpose(1, 2)
        buffer[places.scatter] = states.nan_to_num(0.0, 0.0, 0.0)
        return buffer[places.gather].transpose(1, 2)

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
        self._is_finite = torch.ones(0, 0, dtype=torch.bool)
        """`[rows, slots]`: whether all layers hold what was put there."""

    def lost(self) -> Tensor | None:
        """Which columns of the pass are, or come after, one that some layer could not hold.

        Returns:
            `[batch, columns]`; None where no layer has kept keys and values.
        """
        layout = self.layout
        if not layout.written:
            return None
        is_finite = _largest(layout.written) < torch.inf
        layout.written = []
        flags, past = self._flags(is_finite.device), layout.max_past
        places = layout.places(is_finite.device)
        if places is None:
            seen = flags[layout.rows[0] :][: len(layout.rows), : past + layout.width]
            seen[:, past:] = is_finite
            return (~seen).cumsum(-1)[:, past:] > 0
        rows, slots = places.scatter
        flags[rows, slots] = is_finite
        return ((~flags[rows[:, 0]]).cumsum(-1) > 0).take_along_dim(slots, 1)

    def _flags(self, device: torch.device) -> Tensor:
        rows, slots = max(self.layout.rows) + 1, self.layout.max_past + self.layout.width
        held_rows, held_slots = self._is_finite.shape
        if rows > held_rows or slots > held_slots:
            # Only what is too small doubles: a row more is no reason for more slots in all.
            shape = (
                held_rows if rows <= held_rows else max(rows, 2 * held_rows),
                held_slots if slots <= held_slots else max(slots, 2 * held_slots, _MIN_SLOTS),
            )
            grown = torch.ones(shape, dtype=torch.bool, device=device)
            grown[:held_rows, :held_slots] = self._is_finite.to(device)
            self._is_finite = grown
        return self._is_finite


def _noted(states: Tensor) -> Tensor:
    """What is remembered of `[batch, heads, columns, dim]` until the end of the pass."""
    if states.shape[0] * states.shape[2] <= _FEW_COLUMNS:
        return states
    return states.abs().amax((1, 3), keepdim=True)


def _largest(written: Sequence[Tensor]) -> Tensor:
    """The largest magnitude in each column, `[batch, columns]`; NaN and infinity are on top."""
    alike: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
    for states in written:
        alike[states.shape, states.device].append(states)
    found = [torch.stack(group).abs().amax((0, 2, 4)) for group in alike.values()]
    return torch.stack([one.to(found[0].device) for one in found]).amax(0)


def _grown(buffer: Tensor, rows: int, slots: int) -> Tensor:
    """The buffer with more rows and slots, its content kept."""
    # Zeros, not empty: padding must never show attention a NaN.
    grown = buffer.new_zeros(rows, slots, *buffer.shape[2:])
    grown[: buffer.shape[0], : buffer.shape[1]] = buffer
    return grown
