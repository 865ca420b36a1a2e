"""The free draft's memory and texts on the compiled library: a call a draft, and one a lesson."""

import ctypes
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from weakref import finalize

import numpy as np

from draftsmith.drafters.contract import CheckedText
from draftsmith.drafters.memory import BOUNDS, Bounds, Contents, Memory, Proposed, Text, common_with
from draftsmith.drafters.token_recycling import NUM_SUCCESSORS
from draftsmith.kernels.cpu.library import Library, library

__all__ = ["NativeMemory", "has_native"]

_ROOM = 32
"""Tokens that a text has room for from the start."""


@cache
def has_native() -> bool:
    """Whether the compiled library is there, and new enough."""
    loaded = library()
    return loaded is not None and hasattr(loaded, "ds_text_propose")


class _Held(ctypes.Structure):
    """`DsContents` of the sources."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in Contents._fields),
        *(
            (name, ctypes.c_int64)
            for name in ("num_older", "num_newer", "num_pairs", "num_tokens", "num_weights")
        ),
    ]

    @classmethod
    def at(cls, contents: Contents) -> "_Held":
        """Where these lie; they must live on."""
        sizes = map(len, (contents.older, contents.newer, contents.pairs, contents.tokens))
        places = (one.ctypes.data for one in contents)
        return cls(*places, *sizes, len(contents.weights))


class NativeMemory(Memory):
    """Texts in two generations, a table of successors and odds, in the library's own memory.

    Args:
        bounds: How much it keeps.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        super().__init__()
        self._loaded = _library()
        self.handle: int = self._loaded.ds_memory_new(*bounds)
        """For its texts."""
        _freed_with(self, self._loaded.ds_memory_delete, self.handle)
        self.forget()

    def open_text(self, source: Sequence[int]) -> Text:
        """A text of which nothing was read."""
        return _NativeText(self, source)

    def keep(self, text: Text) -> None:
        """Keep a text of its own that has ended."""
        assert isinstance(text, _NativeText)
        self._loaded.ds_memory_keep(self.handle, text.handle)

    def note(self, before: int, checked: CheckedText) -> None:
        """Keep the successors of every token that the target has read."""
        rows = checked.top_ids
        count = min(len(rows), len(checked.tokens))
        if not count:
            return
        width = len(rows[0])
        if count != len(rows) or set(map(len, rows)) != {width}:
            width = NUM_SUCCESSORS
            rows = [[*row[:width], *[-1] * (width - len(row))] for row in rows[:count]]
        # One array for all: making one takes longer than what is done with it.
        table = [*checked.tokens, *checked.parents]
        num_before = len(table)
        for row in rows:
            table += row
        place = array("i", table)
        tokens = place.buffer_info()[0]
        parents = tokens + len(checked.tokens) * place.itemsize
        ids = tokens + num_before * place.itemsize
        self._loaded.ds_memory_note(self.handle, before, tokens, parents, ids, count, width)

    def contents(self) -> Contents:
        """All that it holds."""
        sizes = _Held()
        self._loaded.ds_memory_sizes(self.handle, ctypes.byref(sizes))
        held = Contents(
            np.zeros(sizes.num_older, np.int32),
            np.zeros(sizes.num_newer, np.int32),
            np.zeros(sizes.num_pairs, np.int64),
            np.zeros((sizes.num_pairs, NUM_SUCCESSORS), np.int32),
            np.zeros(sizes.num_tokens, np.int64),
            np.zeros((sizes.num_tokens, NUM_SUCCESSORS), np.int32),
            np.zeros(sizes.num_weights),
            np.zeros(sizes.num_weights),
        )
        self._loaded.ds_memory_write(self.handle, ctypes.byref(_Held.at(held)))
        return held

    def hold(self, contents: Contents) -> None:
        """Forget everything, and hold what another held."""
        whole = Contents._make(map(np.ascontiguousarray, contents))
        is_done = self._loaded.ds_memory_read(self.handle, ctypes.byref(_Held.at(whole)))
        assert is_done, "the library has other weights"


class _NativeText(Text):
    """One text, and its last draft."""

    def __init__(self, memory: NativeMemory, source: Sequence[int]) -> None:
        self._memory = memory
        self._loaded = _library()
        begin = array("i", source)
        self.handle: int = self._loaded.ds_text_new(
            memory.handle, begin.buffer_info()[0], len(begin)
        )
        _freed_with(self, self._loaded.ds_text_delete, self.handle)
        self._read: list[int] = []
        self._make_room(_ROOM)

    def propose(self, tokens: Sequence[int], size: int, least: float, *, is_tree: bool) -> Proposed:
        """Learn what the last draft was worth, and draft."""
        if size > self._room:
            self._make_room(size)
        common = common_with(self._read, tokens)
        new = tokens[common:]
        self._read[common:] = new
        fresh = array("i", new)
        begin, length = fresh.buffer_info()
        count = self._loaded.ds_text_propose(
            *(self.handle, self._memory.handle, common, begin, length),
            *(size, least, is_tree, *self._addresses),
        )
        return Proposed(*[one[:count] for one in self._places])

    def _make_room(self, size: int) -> None:
        self._room = size
        whole = ctypes.c_int32 * size
        self._places = whole(), whole(), (ctypes.c_double * size)()
        self._addresses = [ctypes.addressof(one) for one in self._places]


def _library() -> Library:
    loaded = library()
    assert loaded is not None
    return loaded


def _freed_with(owner: object, delete: Callable[[int], None], handle: int) -> None:
    # Not at the end of the process, where threads may draft still.
    finalize(owner, delete, handle).atexit = False
