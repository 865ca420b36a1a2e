"""What a decoder on a GPU remembers: pages of one pool, which all caches of a model share.

Graphs hold addresses. So pool and tables belong to the model and outlive the caches, which only
say whose pages are whose.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.gpu.attention import PAGE, Pages
from draftsmith.models.contract import PagedCache
from draftsmith.models.native.config import DecoderConfig

__all__ = ["GpuCache", "PagePool"]

_FIRST_TOKENS = 65_536
_FIRST_SLOTS = 64


class PagePool:
    """Keys and values of every layer in pages, and the tables that say which are whose.

    Args:
        config: The model's shape.
        device: Where.
        dtype: Of keys and values.
    """

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._config = config
        self.most_pages = -(-config.context_length // PAGE) + 1
        """Of one sequence; a pass may write a little beyond the context."""
        self._free_slots = list(range(_FIRST_SLOTS))[::-1]
        num_pages = min(_FIRST_TOKENS // PAGE, self.most_pages * _FIRST_SLOTS)
        self._free_pages = list(range(num_pages))[::-1]
        shape = (config.num_layers, 2, num_pages, config.num_kv_heads, PAGE, config.head_size)
        self._pages = torch.empty(shape, device=device, dtype=dtype)
        self._tables = torch.zeros(_FIRST_SLOTS, self.most_pages, dtype=torch.int32, device=device)
        self.version = 0
        """Rises whenever addresses have changed."""

    @property
    def num_free_pages(self) -> int:
        """Pages that no sequence has."""
        return len(self._free_pages)

    @property
    def tables(self) -> Int[Tensor, "slots most_pages"]:
        """The pages of each slot, in order."""
        return self._tables

    def layer(self, number: int) -> Pages:
        """One layer's pages."""
        return Pages(self._pages[number, 0], self._pages[number, 1])

    def take_slot(self) -> int:
        """A line of the tables that nobody has."""
        if not self._free_slots:
            self._grow_slots()
        return self._free_slots.pop()

    def give_back(self, slot: int, pages: list[int]) -> None:
        """Nobody has them any more."""
        self._free_slots.append(slot)
        self._free_pages.extend(pages[::-1])

    def take_pages(self, slot: int, held: list[int], count: int) -> None:
        """Give a slot so many pages more, which are added to those that it holds.

        Raises:
            InvalidRequestError: The device has no memory for them.
        """
        if len(held) + count > self.most_pages:
            raise InvalidRequestError(
                f"a sequence of {(len(held) + count) * PAGE} tokens is longer than the model's "
                f"context of {self._config.context_length}: shorten the prompt or max_tokens"
            )
        while len(self._free_pages) < count:
            self._grow_pages()
        first = len(held)
        held.extend(self._free_pages.pop() for _ in range(count))
        row = torch.tensor(held[first:], dtype=torch.int32)
        self._tables[slot, first : len(held)] = row.to(self._tables.device)

    def check_integrity(self, held: list[list[int]]) -> None:
        """Every page is free or held once.

        Args:
            held: The pages of every sequence of every cache of this pool.
        """
        taken = [page for pages in held for page in pages]
        assert sorted([*taken, *self._free_pages]) == list(range(self._pages.shape[2]))

    def _grow_pages(self) -> None:
        layers, both, count, *rest = self._pages.shape
        try:
            grown = self._pages.new_empty(layers, both, 2 * count, *rest)
        except torch.OutOfMemoryError as error:
            needed = 2 * self._pages.nbytes / 1e9
            raise InvalidRequestError(
                f"the device has no {needed:.1f} GB for the keys and values of "
                f"{2 * count * PAGE} tokens: use a smaller batch or shorter texts"
            ) from error
        grown[:, :, :count] = self._pages
        self._pages = grown
        self._free_pages[:0] = [*range(count, 2 * count)][::-1]
        self.version += 1

    def _grow_slots(self) -> None:
        count = len(self._tables)
        self._tables = torch.cat((self._tables, torch.zeros_like(self._tables)))
        self._free_slots[:0] = [*range(count, 2 * count)][::-1]
        self.version += 1


@dataclass
class _Held:
    slot: int
    pages: list[int] = field(default_factory=list)


class GpuCache(PagedCache):
    """The slots of one run; lengths are the host's, and travel with each pass.

    Args:
        pool: The model's.
    """

    def __init__(self, pool: PagePool) -> None:
        self._held: dict[int, _Held] = {}
        super().__init__()
        self.pool = pool

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = super().add()
        self._held[row] = _Held(self.pool.take_slot())
        return row

    def remove(self, row: int) -> None:
        """Close a row; its pages can serve others."""
        super().remove(row)
        held = self._held.pop(row)
        self.pool.give_back(held.slot, held.pages)

    def __del__(self) -> None:
        """A cache that is let go of with rows open gives them back."""
        for held in self._held.values():
            self.pool.give_back(held.slot, held.pages)

    def slot(self, row: int) -> int:
        """The line of the pool's tables that is this row's."""
        return self._held[row].slot

    def pages(self, row: int) -> list[int]:
        """The pages of a row, in order."""
        return self._held[row].pages

    def reserve(self, row: int, num_tokens: int) -> int:
        """Make room for a row of so many tokens; the pages that it then has in use."""
        held, wanted = self._held[row], -(-num_tokens // PAGE)
        if wanted > len(held.pages):
            self.pool.take_pages(held.slot, held.pages, wanted - len(held.pages))
        return wanted
