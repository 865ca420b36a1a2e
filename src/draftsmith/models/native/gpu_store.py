"""Keys and values on a GPU: pages of every layer, and the tables that say which are whose.

Which rank of a group it is on does not matter: each holds the pages of its own heads, and all have
the same tables. Who owns which page is decided elsewhere, by rank 0 (`gpu_cache.PagePool`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from draftsmith.kernels.gpu.attention import PAGE, Pages
from draftsmith.models.native.config import DecoderConfig
from draftsmith.parallel.orders import Shared, together

__all__ = ["FIRST_SLOTS", "PageStore"]

_FIRST_TOKENS = 65_536
FIRST_SLOTS = 64


class PageStore(Shared):
    """The device's side of a pool of pages.

    Args:
        config: The model's shape, as far as this rank has it.
        device: Where.
        dtype: Of keys and values.
    """

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.most_pages = -(-config.context_length // PAGE) + 1
        """Of one sequence; a pass may write a little beyond the context."""
        num_pages = min(_FIRST_TOKENS // PAGE, self.most_pages * FIRST_SLOTS)
        shape = (config.num_layers, 2, num_pages, config.num_kv_heads, PAGE, config.head_size)
        self._pages = torch.empty(shape, device=device, dtype=dtype)
        self._grown: Tensor | None = None
        self.tables = torch.zeros(FIRST_SLOTS, self.most_pages, dtype=torch.int32, device=device)
        self.version = 0
        """Rises whenever addresses have changed."""

    @property
    def num_pages(self) -> int:
        """Pages in all."""
        return self._pages.shape[2]

    @property
    def num_slots(self) -> int:
        """Lines of the tables."""
        return len(self.tables)

    @property
    def num_bytes(self) -> int:
        """What the pages take on this rank."""
        return self._pages.nbytes

    def most_pages_in_all(self) -> int | None:
        """Pages once there are as many as this rank's device takes; None where nobody says."""
        device, count = self._pages.device, self.num_pages
        if device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has set aside is free, too.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        # While a pool grows, the old pages are still there.
        return max(count, count * free // self._pages.nbytes)

    def layer(self, number: int) -> Pages:
        """One layer's pages."""
        return Pages(self._pages[number, 0], self._pages[number, 1])

    @together
    @torch.inference_mode()
    def write_table(self, slot: int, first: int, pages: Sequence[int]) -> None:
        """Tell the device some pages of a slot."""
        row = torch.tensor(pages, dtype=torch.int32)
        self.tables[slot, first : first + len(pages)] = row.to(self.tables.device)

    @together
    @torch.inference_mode()
    def copy_page(self, page: int, to: int) -> None:
        """Copy keys and values of every layer."""
        self._pages[:, :, to] = self._pages[:, :, page]

    @together
    @torch.inference_mode()
    def grow_slots(self) -> None:
        """Twice as many lines in the tables."""
        self.tables = torch.cat((self.tables, torch.zeros_like(self.tables)))
        self.version += 1

    def has_room(self, more: int) -> bool:
        """Set memory aside for more pages; whether there is any. `grow` or `stay` comes next."""
        layers, both, count, *rest = self._pages.shape
        try:
            self._grown = self._pages.new_empty(layers, both, count + more, *rest)
        except torch.OutOfMemoryError:
            return False
        return True

    @together
    @torch.inference_mode()
    def grow(self) -> None:
        """Move into the memory that was set aside."""
        assert self._grown is not None
        self._grown[:, :, : self.num_pages] = self._pages
        self._pages, self._grown = self._grown, None
        self.version += 1

    @together
    def stay(self) -> None:
        """Let go of the memory that was set aside."""
        self._grown = None

    def on_every_rank(self, method: str, *args: int) -> list[object]:
        """What a method that reads the device returns on each rank, this one's first."""
        if self.told is None:
            return [getattr(self, method)(*args)]
        return self.told.orders.ask(self, method, *args)
