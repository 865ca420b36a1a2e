"""What a decoder on a GPU remembers: pages of one store, which all caches of a model share.

Graphs hold addresses. So store and tables belong to the model and outlive the caches, which only
say whose pages are whose. A whole page of tokens that are read for good may be shared by any number
of rows, of any cache, and is not written to as long as it is; without a row it is kept until its
memory is wanted.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from draftsmith.errors import CacheFullError, InvalidRequestError
from draftsmith.kernels.gpu.attention import PAGE
from draftsmith.models.contract import PagedCache
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.prefixes import BLOCK, Block, PrefixIndex

__all__ = ["GpuCache", "HeldPages", "PagePool"]

assert PAGE == BLOCK


@dataclass
class HeldPages:
    """What a row has of a pool."""

    slot: int
    pages: list[int] = field(default_factory=list)
    blocks: list[Block[int]] = field(default_factory=list)
    """Of its first pages, where they lie in the index; they may be another row's, too."""


class PagePool:
    """Whose pages of a store are whose.

    Args:
        store: The pages, on this rank.
        context_length: The model's.
    """

    def __init__(self, store: PageStore, context_length: int) -> None:
        self.store = store
        self.context_length = context_length
        self._free_slots = list(range(store.num_slots))[::-1]
        self._free_pages = list(range(store.num_pages))[::-1]
        self.lock = threading.RLock()
        """Held while it is decided whose pages are whose: several engines may run one model."""
        self.index: PrefixIndex[int] = PrefixIndex()
        self.abandoned: deque[HeldPages] = deque()
        """Of caches that were collected with rows open, which happens anywhere."""

    @property
    def num_free_pages(self) -> int:
        """Pages that no sequence has, those that are kept included."""
        self._take_in_abandoned()
        return len(self._free_pages) + self.index.num_kept

    @property
    def most_tokens(self) -> int | None:
        """Tokens that all pages have room for, once there are as many as the devices take."""
        found = self.store.on_every_rank("most_pages_in_all")
        counts = [count for count in found if isinstance(count, int)]
        return PAGE * min(counts) if counts else None

    def take_slot(self) -> int:
        """A line of the tables that nobody has."""
        with self.lock:
            self._take_in_abandoned()
            if not self._free_slots:
                self._grow_slots()
            return self._free_slots.pop()

    def give_back(self, held: HeldPages) -> None:
        """A row that is no more: its own pages are free, shared ones have a holder less."""
        with self.lock:
            self._free_slots.append(held.slot)
            self.free(held.pages[len(held.blocks) :])
            self.index.release(held.blocks)

    def take_pages(self, count: int) -> list[int]:
        """So many pages that nobody has; kept ones make way.

        Raises:
            CacheFullError: The device has no memory for them.
        """
        with self.lock:
            self._take_in_abandoned()
            while len(self._free_pages) < count:
                # Kept pages first: a pool that grows has all graphs captured anew.
                if not self.evict(count - len(self._free_pages)):
                    self._grow_pages()
            return [self._free_pages.pop() for _ in range(count)]

    def free(self, pages: Sequence[int]) -> None:
        """Nobody has them any more."""
        self._free_pages.extend(pages[::-1])

    def evict(self, count: int) -> int:
        """Free so many of the kept pages, or all there are; how many."""
        pages = [page for _ in range(count) if (page := self.index.evict()) is not None]
        self.free(pages)
        return len(pages)

    def check_integrity(self, held: Iterable[Sequence[int]]) -> None:
        """Every page is free, kept, or held by as many rows as are counted.

        Args:
            held: The pages of every sequence of every cache of this pool.
        """
        self._take_in_abandoned()
        self.index.check_integrity()
        holders = {block.content: count for block, count in self.index.holders().items()}
        counts = Counter(page for pages in held for page in pages)
        assert len(holders) == len(self.index), "a page is in the index twice"
        assert all(counts[page] == count for page, count in holders.items())
        own = [page for page in counts if page not in holders]
        assert all(counts[page] == 1 for page in own), "a page has two owners"
        every = [*own, *holders, *self._free_pages]
        assert sorted(every) == list(range(self.store.num_pages))
        assert len(set(self._free_slots)) == len(self._free_slots)

    def _take_in_abandoned(self) -> None:
        while self.abandoned:
            self.give_back(self.abandoned.popleft())

    def _grow_pages(self) -> None:
        store = self.store
        count = store.num_pages
        for more in (count, -(-count // 4)):
            if all(store.on_every_rank("has_room", more)):
                store.grow()
                self._free_pages[:0] = [*range(count, count + more)][::-1]
                return
            store.stay()
        needed = 1.25 * store.num_bytes / 1e9
        raise CacheFullError(
            f"the device has no {needed:.1f} GB for the keys and values of more than "
            f"{count * PAGE} tokens: use a smaller batch or shorter texts"
        )

    def _grow_slots(self) -> None:
        count = self.store.num_slots
        self.store.grow_slots()
        self._free_slots[:0] = [*range(count, 2 * count)][::-1]


class GpuCache(PagedCache):
    """The slots of one run; lengths are the host's, and travel with each pass.

    Args:
        pool: The model's.
    """

    def __init__(self, pool: PagePool) -> None:
        self._held: dict[int, HeldPages] = {}
        super().__init__()
        self.pool = pool
        self._uses: Counter[int] = Counter()
        """Rows of this cache that have each page."""

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = super().add()
        self._held[row] = HeldPages(self.pool.take_slot())
        return row

    def remove(self, row: int) -> None:
        """Close a row; its pages can serve others."""
        super().remove(row)
        held = self._held.pop(row)
        self._count_out(held.pages)
        self.pool.give_back(held)

    def __del__(self) -> None:
        """A cache that is let go of with rows open gives them back."""
        # Not here: garbage is collected anywhere, also in the middle of what counts the pages.
        for held in self._held.values():
            self.pool.abandoned.append(held)

    def slot(self, row: int) -> int:
        """The line of the pool's tables that is this row's."""
        return self._held[row].slot

    def pages(self, row: int) -> list[int]:
        """The pages of a row, in order."""
        return self._held[row].pages

    @property
    def num_held(self) -> int:
        """Tokens that the pages of all rows have room for; a shared page counts once."""
        return PAGE * len(self._uses)

    @property
    def num_kept(self) -> int:
        """Tokens of the pool's pages that are kept."""
        return PAGE * self.pool.index.num_kept

    @property
    def may_be_full(self) -> bool:
        """A device's memory is other users', too."""
        return True

    @property
    def most_tokens(self) -> int | None:
        """As many as were settled, or as the device has memory for."""
        limit, there = self.settings.num_tokens, self.pool.most_tokens
        return there if limit is None else limit // PAGE * PAGE

    def reserve(self, row: int, num_tokens: int) -> int:
        """Make room for a row of so many tokens; the pages that it then has in use."""
        held, wanted = self._held[row], -(-num_tokens // PAGE)
        if wanted > self.pool.store.most_pages:
            raise InvalidRequestError(
                f"a sequence of {wanted * PAGE} tokens is longer than the model's context of "
                f"{self.pool.context_length}: shorten the prompt or max_tokens"
            )
        first = len(held.pages)
        if wanted > first:
            with self.pool.lock:
                self._make_way(wanted - first)
                new = self.pool.take_pages(wanted - first)
                self._uses.update(new)
                held.pages += new
                self.pool.store.write_table(held.slot, first, new)
        return wanted

    def recall(self, row: int, tokens: Sequence[int]) -> int:
        """Let an empty row share the pages of a text's beginning; the tokens that it then holds."""
        held = self._held[row]
        assert not held.pages
        if not self.settings.shares_prefixes:
            return 0
        with self.pool.lock:
            blocks = self.pool.index.find(tokens)
            if not blocks:
                return 0
            pages = [block.content for block in blocks]
            self.pool.index.hold(blocks)
            try:
                self._make_way(sum(page not in self._uses for page in pages))
            except CacheFullError:
                self.pool.index.release(blocks)
                raise
            self._uses.update(pages)
            held.blocks, held.pages = blocks, pages
            self.pool.store.write_table(held.slot, 0, pages)
        self.append(row, PAGE * len(pages))
        return self.length(row)

    def remember(self, row: int, tokens: Sequence[int], *, is_leaving: bool = False) -> None:
        """Let others share the whole pages of a row's beginning."""
        del is_leaving
        assert len(tokens) <= self.length(row)
        if not self.settings.shares_prefixes:
            return
        held = self._held[row]
        with self.pool.lock:
            for first in range(PAGE * len(held.blocks), len(tokens) - PAGE + 1, PAGE):
                self._share(held, tuple(tokens[first : first + PAGE]))

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row; what others share, they keep.

        Raises:
            CacheFullError: There is no room for a copy of the last page, and nothing is changed.
        """
        held = self._held[row]
        if length < PAGE * len(held.blocks):
            with self.pool.lock:
                self._let_go_of_shared(held, length)
        super().rollback(row, length)

    def forget_kept(self) -> None:
        """Free the pool's kept pages."""
        with self.pool.lock:
            self.pool.free(self.pool.index.clear())

    def check_integrity(self) -> None:
        """Every row's pages are those of its table, its blocks and the counts."""
        for row, held in self._held.items():
            assert self.length(row) <= PAGE * len(held.pages)
            assert PAGE * len(held.blocks) <= self.length(row)
            assert [block.content for block in held.blocks] == held.pages[: len(held.blocks)]
            table = self.pool.store.tables[held.slot, : len(held.pages)]
            assert table.tolist() == held.pages
        held_pages = Counter(page for held in self._held.values() for page in held.pages)
        assert held_pages == self._uses
        limit = self.settings.num_tokens
        assert limit is None or self.num_held <= limit

    # --- pages ----------------------------------------------------------------------------------

    def _make_way(self, count: int) -> None:
        """Let kept pages go where this cache and they would be more than it may hold."""
        limit = self.settings.num_tokens
        if limit is None:
            return
        wanted = len(self._uses) + count
        if wanted > limit // PAGE:
            raise CacheFullError(
                f"{wanted * PAGE} tokens are more than cache_tokens={limit}: use a smaller batch, "
                "shorter texts, or more cache_tokens"
            )
        self.pool.evict(max(0, wanted + self.pool.index.num_kept - limit // PAGE))

    def _share(self, held: HeldPages, tokens: tuple[int, ...]) -> None:
        """Put a row's next page into the index, or take the one that is there in its place."""
        index, number = self.pool.index, len(held.blocks)
        parent = held.blocks[-1] if held.blocks else None
        block = index.after(parent, tokens)
        if block is None:
            held.blocks.append(index.add(parent, tokens, held.pages[number]))
            return
        # The same tokens have the same bits in both.
        index.hold([block])
        held.blocks.append(block)
        self.pool.free([self._replace(held, number, block.content)])

    def _let_go_of_shared(self, held: HeldPages, length: int) -> None:
        """Leave a row the pages of its first `length` tokens, the last of them its own."""
        num_whole, rest = divmod(length, PAGE)
        copy: int | None = None
        if rest and held.blocks[num_whole].num_holders > 1:
            # First, because it may fail. A page that only this row has makes way for it.
            behind = held.pages[num_whole + 1 :]
            self._make_way(0 if any(self._uses[page] == 1 for page in behind) else 1)
            [copy] = self.pool.take_pages(1)
        num_pages = num_whole + bool(rest)
        self._drop_behind(held, num_pages)
        if not rest:
            return
        block = held.blocks.pop()
        if copy is None:
            self.pool.free(self.pool.index.forget(block))
        else:
            self._make_way(1)
            self.pool.store.copy_page(block.content, copy)
            self._replace(held, num_whole, copy)
            self.pool.index.release([block])

    def _drop_behind(self, held: HeldPages, num_pages: int) -> None:
        """Let go of all pages of a row but the first ones."""
        blocks, pages = held.blocks[num_pages:], held.pages[num_pages:]
        own = pages[len(blocks) :]
        del held.blocks[num_pages:], held.pages[num_pages:]
        self._count_out(pages)
        self.pool.index.release(blocks)
        self.pool.free(own)

    def _replace(self, held: HeldPages, number: int, page: int) -> int:
        """Give a row another page in the place of one, which is returned."""
        before, held.pages[number] = held.pages[number], page
        self._uses[page] += 1
        self._count_out([before])
        self.pool.store.write_table(held.slot, number, [page])
        return before

    def _count_out(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._uses[page] -= 1
            if not self._uses[page]:
                del self._uses[page]
