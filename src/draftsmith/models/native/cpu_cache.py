"""What the fast decoder on a CPU remembers: keys and values of each sequence in memory of its own.

A text's beginning is shared by copies: its whole blocks are kept apart, and put into the rows of
other texts that begin so. A token's keys and values have the same bits in every pass, so a copy is
what the row would have computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import CacheFullError
from draftsmith.models.contract import BoundedCache
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.prefixes import BLOCK, Block, PrefixIndex

__all__ = ["TILE", "CpuCache", "CpuRow"]

TILE = 16
"""Positions of a key block, and ids of a tile of the head."""
_MIN_CAPACITY = 256
_MOST_KEPT_BYTES = 1 << 28
"""Of beginnings that are kept where nobody says how many tokens a cache may hold."""


@dataclass
class CpuRow:
    """One sequence's keys and values."""

    keys: Float[Tensor, "layers kv_heads blocks head 16"]
    values: Float[Tensor, "layers kv_heads slots padded_head"]
    tiles: dict[int, int] = field(default_factory=dict)
    """Tiles of the head that hold a token of this sequence, and the slot of the first one (reduced
    heads only)."""
    newest: tuple[int, ...] = ()
    """Tokens of the last pass."""
    num_before: int = 0
    """Tokens that it held before that pass."""

    @property
    def capacity(self) -> int:
        """Tokens that there is room for."""
        return self.values.shape[2]

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return self.keys.nbytes + self.values.nbytes

    def note(self, tokens: Sequence[int], start: int) -> None:
        """Note the tiles of some tokens, the first of which lies at `start`."""
        for slot, token in enumerate(tokens, start):
            self.tiles.setdefault(token // TILE, slot)

    def forget_tiles(self, length: int) -> None:
        """Forget those that no token before `length` lies in."""
        while self.tiles and next(reversed(self.tiles.values())) >= length:
            self.tiles.popitem()

    def tiles_of_others(self, parents: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Tokens of the last pass, a tree, and tiles that only others of it lie in."""
        ways: list[set[int]] = []
        for token, parent in zip(self.newest, parents, strict=True):
            ways.append({token // TILE, *(ways[parent] if parent >= 0 else ())})
        slots = reversed(self.tiles.items())
        new = list(takewhile(lambda one: one[1] >= self.num_before, slots))
        return ((i, tile) for i, way in enumerate(ways) for tile, _ in new if tile not in way)


class _Copy(NamedTuple):
    """Keys and values of a block's tokens."""

    keys: Float[Tensor, "layers kv_heads 4 head 16"]
    values: Float[Tensor, "layers kv_heads 64 padded_head"]


class CpuCache(BoundedCache):
    """Rows that grow by doubling, or where tokens are counted by an eighth, in whole blocks.

    Args:
        config: The model's shape.
        dtype: Of keys and values.
    """

    def __init__(self, config: DecoderConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self._config = config
        self._dtype = dtype
        self._rows: dict[int, CpuRow] = {}
        self._index: PrefixIndex[_Copy] = PrefixIndex()

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = super().add()
        self._rows[row] = CpuRow(*self._memory(0))
        return row

    def remove(self, row: int) -> None:
        """Close a row, and free its memory."""
        super().remove(row)
        del self._rows[row]

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row."""
        super().rollback(row, length)
        self._rows[row].forget_tiles(length)

    def keep(self, row: int, length: int, path: Sequence[int]) -> None:
        """Forget all tokens of a pass but those of a path."""
        super().keep(row, length, path)
        held = self._rows[row]
        if held.tiles:
            held.forget_tiles(length)
            held.note([held.newest[index] for index in path], length)

    @torch.inference_mode()
    def _move(self, row: int, source: int, target: int) -> None:
        keys, values = self._rows[row].keys, self._rows[row].values
        here, there = divmod(source, TILE), divmod(target, TILE)
        keys[:, :, there[0], :, there[1]] = keys[:, :, here[0], :, here[1]]
        values[:, :, target] = values[:, :, source]

    def row(self, number: int) -> CpuRow:
        """What lies behind a number."""
        return self._rows[number]

    def begin(
        self, numbers: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> tuple[list[CpuRow], list[int]]:
        """Rows with room for more tokens, and how many each holds before them."""
        rows = [self._rows[number] for number in numbers]
        starts = [self._lengths[number] for number in numbers]
        for number, row, start, new in zip(numbers, rows, starts, tokens, strict=True):
            if start + len(new) > row.capacity:
                self.reserve(number, start + len(new))
        return rows, starts

    def end(self, numbers: Sequence[int], tokens: Sequence[Sequence[int]]) -> None:
        """Count what a pass has written."""
        for number, new in zip(numbers, tokens, strict=True):
            row = self._rows[number]
            row.newest, row.num_before = tuple(new), self._lengths[number]
            self._lengths[number] += len(new)

    def num_bytes(self) -> int:
        """What all rows take in memory."""
        return sum(row.num_bytes for row in self._rows.values())

    @property
    def num_held(self) -> int:
        """Tokens that the memory of all rows has room for."""
        # A copy: others ask, too, while rows come and go.
        return sum(row.capacity for row in list(self._rows.values()))

    @property
    def num_kept(self) -> int:
        """Tokens of the copies that are kept."""
        return BLOCK * len(self._index)

    @property
    def may_be_full(self) -> bool:
        """Only if a number of tokens was settled."""
        return self.settings.num_tokens is not None

    @property
    def most_tokens(self) -> int | None:
        """As many as were settled."""
        limit = self.settings.num_tokens
        return None if limit is None else limit // BLOCK * BLOCK

    def reserve(self, row: int, num_tokens: int) -> int:
        """Make room for a row of so many tokens; the blocks that it then has in use."""
        held = self._rows[row]
        if num_tokens > held.capacity:
            limit = self.settings.num_tokens
            if limit is None:
                # No further than the context, unless that very pass goes there.
                doubled = max(2 * held.capacity, _MIN_CAPACITY)
                wanted = max(num_tokens, min(doubled, self._config.context_length))
                self._grow(held, _rounded(wanted, TILE))
            else:
                capacity = self._affordable(held.capacity, num_tokens, limit)
                self._keep_within(limit - (capacity - held.capacity))
                self._grow(held, capacity)
        return -(-num_tokens // BLOCK)

    def recall(self, row: int, tokens: Sequence[int]) -> int:
        """Copy what is known of a text's beginning into an empty row; the tokens it then holds."""
        assert not self.length(row)
        if not self.settings.shares_prefixes:
            return 0
        blocks = self._index.find(tokens)
        if not blocks:
            return 0
        self._index.hold(blocks)
        try:
            self.reserve(row, BLOCK * len(blocks))
            for number, block in enumerate(blocks):
                self._write(self._rows[row], number, block.content)
        finally:
            self._index.release(blocks)
        self.append(row, BLOCK * len(blocks))
        self._rows[row].note(tokens[: self.length(row)], 0)
        if self.settings.num_tokens is not None:
            # The copies were held just now, and may be too many beside the row.
            self._keep_within(self.settings.num_tokens)
        return self.length(row)

    def remember(self, row: int, tokens: Sequence[int], *, is_leaving: bool = False) -> None:
        """Keep copies of the whole blocks of a row's beginning, as far as there is room."""
        assert len(tokens) <= self.length(row)
        if not self.settings.shares_prefixes:
            return
        most = self._most_blocks(self._rows[row].capacity if is_leaving else 0)
        path: list[Block[_Copy]] = []
        for first in range(0, len(tokens) - BLOCK + 1, BLOCK):
            own = tuple(tokens[first : first + BLOCK])
            parent = path[-1] if path else None
            block = self._index.after(parent, own)
            if block is not None:
                self._index.hold([block])
            elif self._keep_below(most):
                block = self._index.add(parent, own, self._copy(self._rows[row], first // BLOCK))
            else:
                break
            path.append(block)
        self._index.release(path)

    def forget_kept(self) -> None:
        """Free the copies."""
        self._index.clear()

    def check_integrity(self) -> None:
        """Every row has room for its tokens, no copy is in use, and all are within the limit."""
        self._index.check_integrity()
        assert self._index.num_kept == len(self._index)
        assert self._rows.keys() == self._lengths.keys()
        for number, row in self._rows.items():
            assert self.length(number) <= row.capacity == TILE * row.keys.shape[2]
            assert all(first < self.length(number) for first in row.tiles.values())
        limit = self.settings.num_tokens
        assert limit is None or self.num_held + self.num_kept <= limit

    # --- memory ---------------------------------------------------------------------------------

    def _affordable(self, capacity: int, num_tokens: int, limit: int) -> int:
        """What a row grows to: what is wanted, and more where that takes nothing from others."""
        others = self.num_held - capacity
        wanted = _rounded(num_tokens, BLOCK)
        if others + wanted > limit:
            raise CacheFullError(
                f"{others + wanted} tokens are more than cache_tokens={limit}: use a smaller "
                "batch, shorter texts, or more cache_tokens"
            )
        # A row of many blocks is not copied for each of them.
        roomy = _rounded(min(capacity + capacity // 8, self._config.context_length), BLOCK)
        free = (limit - others - self.num_kept) // BLOCK * BLOCK
        return max(wanted, min(roomy, free))

    def _keep_within(self, limit: int) -> None:
        """Let copies go until all is within a limit."""
        while self.num_held + self.num_kept > limit and self._index.evict() is not None:
            pass

    def _keep_below(self, most: int) -> bool:
        """Let copies go until there are fewer than so many; whether there are."""
        while len(self._index) >= max(1, most) and self._index.evict() is not None:
            pass
        return len(self._index) < most

    def _most_blocks(self, leaving: int) -> int:
        """Copies that there may be, once so many tokens of the rows' memory are free."""
        limit = self.settings.num_tokens
        if limit is None:
            return _MOST_KEPT_BYTES // self._block_bytes
        return (limit - self.num_held + leaving) // BLOCK

    @property
    def _block_bytes(self) -> int:
        config = self._config
        each = config.head_size + _rounded(config.head_size, TILE)
        return BLOCK * config.num_layers * config.num_kv_heads * each * self._dtype.itemsize

    def _grow(self, row: CpuRow, capacity: int) -> None:
        keys, values = self._memory(capacity)
        keys[:, :, : row.keys.shape[2]] = row.keys
        values[:, :, : row.capacity] = row.values
        row.keys, row.values = keys, values

    def _memory(self, capacity: int) -> tuple[Tensor, Tensor]:
        # Zeros: what lies beyond the last token is read, and never looked at.
        config = self._config
        heads = (config.num_layers, config.num_kv_heads)
        padded = _rounded(config.head_size, TILE)
        keys = torch.zeros(*heads, capacity // TILE, config.head_size, TILE, dtype=self._dtype)
        return keys, torch.zeros(*heads, capacity, padded, dtype=self._dtype)

    @staticmethod
    def _copy(row: CpuRow, number: int) -> _Copy:
        tiles = BLOCK // TILE
        keys = row.keys[:, :, tiles * number : tiles * (number + 1)]
        return _Copy(keys.clone(), row.values[:, :, BLOCK * number : BLOCK * (number + 1)].clone())

    @staticmethod
    def _write(row: CpuRow, number: int, block: _Copy) -> None:
        tiles = BLOCK // TILE
        row.keys[:, :, tiles * number : tiles * (number + 1)] = block.keys
        row.values[:, :, BLOCK * number : BLOCK * (number + 1)] = block.values


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to
