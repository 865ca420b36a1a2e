"""Which blocks of keys and values are there to share, by the tokens that they were read from.

A block holds 64 tokens, and its keys and values depend on all tokens before it. So blocks are the
nodes of a tree: the way from its root to a block spells a text. Tokens are compared, not their
hashes alone: no two texts can be taken for each other.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

__all__ = ["BLOCK", "Block", "PrefixIndex"]

BLOCK = 64
"""Tokens of a block."""

Content = TypeVar("Content")
_Tokens: TypeAlias = tuple[int, ...]


class Block(Generic[Content]):
    """64 tokens behind those of the blocks above, and where their keys and values lie."""

    __slots__ = ("content", "followers", "num_holders", "parent", "tokens")

    def __init__(self, parent: "Block[Content] | None", tokens: _Tokens, content: Content) -> None:
        self.parent = parent
        self.tokens = tokens
        self.content = content
        self.num_holders = 0
        """Sequences that have it in use."""
        self.followers: dict[_Tokens, Block[Content]] = {}


class PrefixIndex(Generic[Content]):
    """A tree of blocks; those that no sequence holds are kept, the least recently used first.

    Whoever holds a block holds those above it, and lets go of it before them. So of the blocks that
    are kept, the least recent has none behind it.

    Example:
        >>> index = PrefixIndex()
        >>> block = index.add(None, tuple(range(64)), "page 3")
        >>> index.release([block])
        >>> [found.content for found in index.find(list(range(70)))], index.num_kept
        (['page 3'], 1)
    """

    def __init__(self) -> None:
        self._firsts: dict[_Tokens, Block[Content]] = {}
        self._kept: OrderedDict[Block[Content], None] = OrderedDict()
        self._num_blocks = 0

    def __len__(self) -> int:
        """Blocks, held or kept."""
        return self._num_blocks

    @property
    def num_kept(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._kept)

    def find(self, tokens: Sequence[int]) -> list[Block[Content]]:
        """The blocks that a text begins with, as far as they are there; none is held by it."""
        found: list[Block[Content]] = []
        behind = self._firsts
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            block = behind.get(tuple(tokens[start : start + BLOCK]))
            if block is None:
                break
            found.append(block)
            behind = block.followers
        return found

    def after(self, parent: Block[Content] | None, tokens: _Tokens) -> Block[Content] | None:
        """The block of such tokens behind another, if it is there."""
        return self._behind(parent).get(tokens)

    def add(
        self, parent: Block[Content] | None, tokens: _Tokens, content: Content
    ) -> Block[Content]:
        """A new block, held once.

        Args:
            parent: Held by the same; None for the first block of a text.
            tokens: Its own.
            content: Where its keys and values lie.
        """
        assert len(tokens) == BLOCK
        behind = self._behind(parent)
        assert tokens not in behind
        block = behind[tokens] = Block(parent, tokens, content)
        block.num_holders = 1
        self._num_blocks += 1
        return block

    def hold(self, blocks: Iterable[Block[Content]]) -> None:
        """Count a holder more of each."""
        for block in blocks:
            self._kept.pop(block, None)
            block.num_holders += 1

    def release(self, blocks: Sequence[Block[Content]]) -> None:
        """Count a holder less of each; those without one are kept.

        Args:
            blocks: Neighbours on one way down the tree, the last of them the lowest that is held.
        """
        for block in reversed(blocks):
            block.num_holders -= 1
            if not block.num_holders:
                self._kept[block] = None

    def evict(self) -> Content | None:
        """Forget the kept block that was in use the longest ago; None if none is kept."""
        if not self._kept:
            return None
        block, _ = self._kept.popitem(last=False)
        self._cut(block)
        return block.content

    def forget(self, block: Block[Content]) -> list[Content]:
        """Take a block with one holder out of the tree: its content is about to change.

        Returns:
            The contents of the kept blocks behind it, which nobody will find again.
        """
        assert block.num_holders == 1
        self._cut(block)
        behind = [one for below in block.followers.values() for one in _all_of(below)]
        block.followers = {}
        for one in behind:
            del self._kept[one]
        self._num_blocks -= len(behind)
        return [one.content for one in behind]

    def clear(self) -> list[Content]:
        """Forget all kept blocks; their contents."""
        contents: list[Content] = []
        while self._kept:
            content = self.evict()
            assert content is not None
            contents.append(content)
        return contents

    def holders(self) -> dict[Block[Content], int]:
        """Every block of the tree, and how many sequences hold it."""
        every = [one for first in self._firsts.values() for one in _all_of(first)]
        return {block: block.num_holders for block in every}

    def check_integrity(self) -> None:
        """The tree hangs together; what has no holder is kept, lower blocks before higher ones."""
        counts = self.holders()
        assert len(counts) == self._num_blocks
        assert {block for block, count in counts.items() if not count} == set(self._kept)
        order = {block: place for place, block in enumerate(self._kept)}
        for block, count in counts.items():
            assert self.after(block.parent, block.tokens) is block
            assert count >= sum(below.num_holders for below in block.followers.values())
            if not count:
                assert all(order[below] < order[block] for below in block.followers.values())

    def _behind(self, parent: Block[Content] | None) -> dict[_Tokens, Block[Content]]:
        return self._firsts if parent is None else parent.followers

    def _cut(self, block: Block[Content]) -> None:
        del self._behind(block.parent)[block.tokens]
        self._num_blocks -= 1


def _all_of(top: Block[Content]) -> Iterator[Block[Content]]:
    """A block and all behind it, the lowest first; without a call for each level."""
    found = [top]
    for block in found:
        found.extend(block.followers.values())
    return reversed(found)
