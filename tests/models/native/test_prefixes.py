"""What rows share: blocks are counted, kept and let go of, and every row holds its own text."""
# transformers' objects, which other tests' models are made of, have looser annotations:
# pyright: basic

import gc
from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from draftsmith.errors import CacheFullError
from draftsmith.models.contract import BoundedCache, CacheSettings
from draftsmith.models.native.cpu_cache import CpuCache
from draftsmith.models.native.gpu_cache import GpuCache
from draftsmith.models.native.prefixes import BLOCK, Block, PrefixIndex
from tests.models.native.kept import CONTEXT, KINDS, Memory, marks

SHARING = CacheSettings(None, shares_prefixes=True)
TEXT = [(5 * i * i + i) % 90 for i in range(5 * BLOCK)]


def one(kind: str, settings_: CacheSettings = SHARING) -> tuple[Memory, BoundedCache]:
    memory = Memory(kind, settings_)
    return memory, memory.open_cache()


def written(memory: Memory, cache: BoundedCache, text: list[int]) -> int:
    """A row that has run a text."""
    row = cache.add()
    memory.write(cache, row, text, len(text))
    return row


# --- the index ----------------------------------------------------------------------------------


def test_texts_that_begin_alike_have_blocks_in_common() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    first = index.add(None, tuple(TEXT[:BLOCK]), "first")
    second = index.add(first, tuple(TEXT[BLOCK : 2 * BLOCK]), "second")
    assert index.find(TEXT) == [first, second]
    assert index.find(TEXT[: 2 * BLOCK - 1]) == [first]
    assert index.find(TEXT[1:]) == []
    assert index.find([*TEXT[:BLOCK], *TEXT[:BLOCK]]) == [first], "the second block elsewhere"


def test_the_least_recent_goes_first_and_never_before_those_behind_it() -> None:
    index: PrefixIndex[str] = PrefixIndex()
    stem = index.add(None, (0,) * BLOCK, "stem")
    left = index.add(stem, (1,) * BLOCK, "left")
    index.release([stem, left])
    index.hold([stem])
    right = index.add(stem, (2,) * BLOCK, "right")
    index.release([stem, right])
    index.hold([stem, left])
    index.release([stem, left])
    index.check_integrity()
    assert [index.evict() for _ in range(4)] == ["right", "left", "stem", None]
    assert not index.find([0] * BLOCK)


# --- rows that share ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_was_run_is_recalled_in_whole_blocks(kind: str) -> None:
    memory, cache = one(kind)
    first = written(memory, cache, TEXT[:200])
    cache.remember(first, TEXT[:200])
    second = cache.add()
    assert cache.recall(second, TEXT[:180]) == 128
    memory.write(cache, second, TEXT[:180], 52)
    cache.remove(first)
    assert memory.read(cache, second) == marks(TEXT[:180])
    third = cache.add()
    assert cache.recall(third, TEXT) == 192
    memory.check([cache], [{second: TEXT[:180], third: TEXT[:192]}])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_recalled_where_sharing_is_off(kind: str) -> None:
    memory, cache = one(kind, CacheSettings(None, shares_prefixes=False))
    first = written(memory, cache, TEXT[:200])
    cache.remember(first, TEXT[:200])
    assert cache.recall(cache.add(), TEXT) == 0
    cache.remove(first)
    assert cache.num_kept == 0


def test_pages_are_shared_not_copied_and_count_once() -> None:
    memory, cache = one("gpu")
    assert isinstance(cache, GpuCache)
    first = written(memory, cache, TEXT[:128])
    cache.remember(first, TEXT[:128])
    second = cache.add()
    cache.recall(second, TEXT[:128])
    assert cache.pages(second) == cache.pages(first)
    assert cache.num_held == 128
    twin = written(memory, cache, TEXT[:130])
    assert cache.num_held == 128 + 3 * BLOCK
    cache.remember(twin, TEXT[:130])
    assert cache.pages(twin)[:2] == cache.pages(first), "the same text ran twice: one is enough"
    assert cache.num_held == 3 * BLOCK
    memory.check([cache], [{first: TEXT[:128], second: TEXT[:128], twin: TEXT[:130]}])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rolled_back_and_written_anew_changes_no_other_row(kind: str) -> None:
    memory, cache = one(kind)
    first = written(memory, cache, TEXT[:192])
    cache.remember(first, TEXT[:192])
    second = cache.add()
    cache.recall(second, TEXT[:192])
    for row, length in ((second, 100), (first, 128), (second, 64)):
        cache.rollback(row, length)
        text = [*TEXT[:length], *[89] * 40]
        memory.write(cache, row, text, 40)
        cache.rollback(row, length)
    memory.check([cache], [{first: TEXT[:128], second: TEXT[:64]}])
    third = cache.add()
    found = cache.recall(third, TEXT[:192])
    memory.check([cache], [{first: TEXT[:128], second: TEXT[:64], third: TEXT[:found]}])


def two_that_share(num_blocks: int) -> tuple[Memory, GpuCache, int, int]:
    """Two rows of 128 shared tokens, one of them with 5 more, in a cache of so many blocks."""
    memory, cache = one("gpu", CacheSettings(num_blocks * BLOCK, shares_prefixes=True))
    assert isinstance(cache, GpuCache)
    first = written(memory, cache, TEXT[:133])
    cache.remember(first, TEXT[:128])
    second = cache.add()
    assert cache.recall(second, TEXT) == 128
    return memory, cache, first, second


@pytest.mark.parametrize("length", [0, 64, 70, 128, 130])
def test_a_rollback_into_what_others_share_takes_one_page_at_most(length: int) -> None:
    memory, cache, first, second = two_that_share(num_blocks=3)
    cache.rollback(first, length)
    memory.check([cache], [{first: TEXT[:length], second: TEXT[:128]}])
    assert cache.num_held == (2 if length <= 64 else 3) * BLOCK
    memory.write(cache, first, [*TEXT[:length], 89], 1)
    memory.check([cache], [{first: [*TEXT[:length], 89], second: TEXT[:128]}])


def test_a_rollback_without_room_for_a_copy_changes_nothing() -> None:
    memory, cache, first, second = two_that_share(num_blocks=3)
    with pytest.raises(CacheFullError):
        cache.rollback(second, 100)
    memory.check([cache], [{first: TEXT[:133], second: TEXT[:128]}])
    cache.rollback(first, 128)
    assert cache.num_held == 3 * BLOCK, "what is rolled back is not yet given back"
    cache.remove(first)
    cache.rollback(second, 100)
    memory.check([cache], [{second: TEXT[:100]}])


@pytest.mark.parametrize("kind", KINDS)
def test_kept_blocks_make_way_before_anybody_is_refused(kind: str) -> None:
    memory, cache = one(kind, CacheSettings(4 * BLOCK, shares_prefixes=True))
    row = written(memory, cache, TEXT[: 3 * BLOCK])
    cache.remember(row, TEXT[: 3 * BLOCK], is_leaving=True)
    cache.remove(row)
    assert (cache.num_held, cache.num_kept) == (0, 3 * BLOCK)
    row = cache.add()
    cache.reserve(row, 2 * BLOCK)
    assert (cache.num_held, cache.num_kept) == (2 * BLOCK, 2 * BLOCK)
    other = cache.add()
    with pytest.raises(CacheFullError, match=f"{5 * BLOCK} tokens .* cache_tokens={4 * BLOCK}"):
        cache.reserve(other, 3 * BLOCK)
    assert cache.recall(other, TEXT) == 2 * BLOCK, "the first blocks are the last to go"
    memory.check([cache], [{row: [], other: TEXT[: 2 * BLOCK]}])
    assert cache.spare == 0


def test_copies_are_kept_within_a_bound_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, cache = one("cpu")
    assert isinstance(cache, CpuCache)
    block_bytes = cache._block_bytes
    row = written(memory, cache, TEXT[:BLOCK])
    cache.remember(row, TEXT[:BLOCK])
    [held] = cache._index.find(TEXT[:BLOCK])
    assert block_bytes == held.content.keys.nbytes + held.content.values.nbytes
    monkeypatch.setattr("draftsmith.models.native.cpu_cache._MOST_KEPT_BYTES", 2 * block_bytes + 1)
    long = written(memory, cache, [8, *TEXT])
    cache.remember(long, [8, *TEXT])
    assert cache.num_kept == 2 * BLOCK
    fresh = cache.add()
    assert cache.recall(fresh, [8, *TEXT]) == 2 * BLOCK
    memory.check([cache], [{row: TEXT[:BLOCK], long: [8, *TEXT], fresh: [8, *TEXT][:128]}])


def test_a_cache_that_is_dropped_leaves_its_pages_in_good_order() -> None:
    memory, cache = one("gpu")
    assert memory.pool is not None
    free = memory.pool.num_free_pages
    row = written(memory, cache, TEXT[:128])
    cache.remember(row, TEXT[:128])
    other = memory.open_cache()
    second = other.add()
    assert other.recall(second, TEXT) == 128, "pages are a model's, not a cache's"
    del cache
    gc.collect()
    memory.check([other], [{second: TEXT[:128]}])
    other.remove(second)
    assert memory.pool.num_free_pages == free
    assert other.num_kept == 128
    other.forget_kept()
    assert (memory.pool.num_free_pages, other.num_kept) == (free, 0)


# --- everything in any order --------------------------------------------------------------------


class Turnover(RuleBasedStateMachine):
    """Rows come, grow, are rolled back, share, make way and go; caches are dropped."""

    kind = ""
    limit: int | None = None

    @initialize()
    def start(self) -> None:
        self.memory = Memory(self.kind, CacheSettings(self.limit, shares_prefixes=True))
        self.caches = [self.memory.open_cache()]
        text = [1] * (2 * BLOCK + 5)
        row = written(self.memory, self.caches[0], text)
        self.caches[0].remember(row, text)
        self.texts: list[dict[int, list[int]]] = [{row: text}]

    def _pick(self, data: st.DataObject) -> tuple[BoundedCache, dict[int, list[int]], int]:
        number = data.draw(st.sampled_from([i for i, rows in enumerate(self.texts) if rows]))
        return (
            self.caches[number],
            self.texts[number],
            data.draw(st.sampled_from(sorted(self.texts[number]))),
        )

    has_rows = precondition(lambda self: any(self.texts))

    @rule(number=st.integers(0, 1))
    def add(self, number: int) -> None:
        number %= len(self.caches)
        if len(self.texts[number]) < 4:
            self.texts[number][self.caches[number].add()] = []

    @has_rows
    @rule(data=st.data(), token=st.integers(1, 2), count=st.sampled_from([1, 5, 30, 64, 100, 130]))
    def append(self, data: st.DataObject, token: int, count: int) -> None:
        cache, rows, row = self._pick(data)
        text = [*rows[row], *[token] * count][:CONTEXT]
        before = len(rows[row])
        try:
            self.memory.write(cache, row, text, len(text) - before)
        except CacheFullError:
            return
        rows[row] = text

    @has_rows
    @rule(data=st.data(), share=st.floats(0, 1))
    def roll_back(self, data: st.DataObject, share: float) -> None:
        cache, rows, row = self._pick(data)
        length = int(share * len(rows[row]))
        try:
            cache.rollback(row, length)
        except CacheFullError:
            return
        rows[row] = rows[row][:length]

    @has_rows
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        cache, rows, row = self._pick(data)
        cache.remember(row, rows[row])

    @has_rows
    @rule(data=st.data(), count=st.integers(0, 130), again=st.booleans())
    def fork(self, data: st.DataObject, count: int, again: bool) -> None:
        """A new row that begins as another one does, or a row that makes way and comes back."""
        cache, rows, row = self._pick(data)
        text = [*rows[row], *[2] * count]
        if again:
            cache.remember(row, rows[row], is_leaving=True)
            cache.remove(row)
            del rows[row]
        new = cache.add()
        try:
            found = cache.recall(new, text)
        except CacheFullError:
            cache.remove(new)
            return
        rows[new] = text[:found]

    @has_rows
    @rule(data=st.data(), is_kept=st.booleans())
    def leave(self, data: st.DataObject, is_kept: bool) -> None:
        cache, rows, row = self._pick(data)
        if is_kept:
            cache.remember(row, rows[row], is_leaving=True)
        cache.remove(row)
        del rows[row]

    @rule()
    def forget(self) -> None:
        self.caches[0].forget_kept()
        assert self.caches[0].num_kept == 0

    @precondition(lambda self: self.kind == "gpu")
    @rule()
    def open_or_drop(self) -> None:
        if len(self.caches) == 1:
            self.caches.append(self.memory.open_cache())
            self.texts.append({})
        else:
            self.caches.pop(0)
            self.texts.pop(0)

    @invariant()
    def everything_agrees(self) -> None:
        if hasattr(self, "caches"):
            self.memory.check(self.caches, self.texts)


def run_turnover(kind: str, limit: int | None, *, is_planted: bool = False) -> None:
    class Machine(Turnover):
        pass

    Machine.kind, Machine.limit = kind, limit
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=100 if is_planted else 25,
            stateful_step_count=25,
            deadline=None,
            # What is planted is there to be found, always: neither luck nor the smallest way to it.
            derandomize=is_planted,
            # Without shrinking, which takes minutes: one step after another is read as easily.
            phases=[Phase.generate]
            if is_planted
            else [Phase.explicit, Phase.reuse, Phase.generate],
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.long
@pytest.mark.parametrize("limit", [None, 5 * BLOCK])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_contents_hold_after_everything_in_any_order(
    kind: str, limit: int | None
) -> None:
    run_turnover(kind, limit)


def _shared_stays_writable(cache: GpuCache, row: int, length: int) -> None:
    super(GpuCache, cache).rollback(row, length)


def _never_counted(index: PrefixIndex[int], blocks: list[Block[int]]) -> None:
    for block in blocks:
        index._kept.pop(block, None)


PLANTED: dict[str, tuple[str, Callable[..., object]]] = {
    "a shared page is written to": ("GpuCache.rollback", _shared_stays_writable),
    "a holder is not counted": ("PrefixIndex.hold", _never_counted),
    "a page is freed twice": (
        "PagePool.give_back",
        lambda pool, held: (
            pool._free_slots.append(held.slot),
            pool.free(held.pages),
            pool.index.release(held.blocks),
        ),
    ),
    "a slot is lost": ("PagePool.take_slot", lambda pool: pool._free_slots[-1]),
}


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, fault = PLANTED[name]
    module = "prefixes" if place.startswith("Prefix") else "gpu_cache"
    monkeypatch.setattr(f"draftsmith.models.native.{module}.{place}", fault)
    with pytest.raises((AssertionError, KeyError)):
        run_turnover("gpu", 5 * BLOCK, is_planted=True)
