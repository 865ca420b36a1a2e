"""One sequence's tree while it grows: its nodes, how likely each is kept, and which to read."""

import heapq
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from draftsmith.core.trees import ROOT, ancestors
from draftsmith.drafters.trees import Tip

__all__ = ["Child", "Finished", "Tree", "kept_chance"]


class Child(NamedTuple):
    """A guess for one position."""

    token: int
    sure: float
    """How likely it is right, if what it follows is."""
    law: Float[Tensor, " vocab"] | None = None
    """What it was drawn from, where the check asks for that."""


class Finished(NamedTuple):
    """A tree to be checked, its nodes in the order in which they are worth it, or were drawn."""

    tokens: list[int]
    parents: list[int]
    sure: list[float]
    laws: list[Float[Tensor, " vocab"]]


def kept_chance(sure: float, number: int) -> float:
    """How likely the check comes to a drawn child and keeps it: a guess by the law alone.

    A drawn token is kept where target and draft overlap, and they do the more the surer the draft
    is; of a flat law, too, about half overlaps.

    Args:
        sure: The largest mass of the law.
        number: Of its elder siblings.

    Example:
        >>> kept_chance(0.5, 0), kept_chance(0.5, 1)
        (0.75, 0.1875)
    """
    first = (1 + sure) / 2
    return first * (1 - first) ** number


class Tree:
    """A tree that grows.

    Args:
        size: Nodes that are checked at most.
        depth: Nodes of a path at most; None for no bound.
        is_drawn: Whether every node is checked, so that there are never more.
    """

    def __init__(self, size: int, depth: int | None = None, *, is_drawn: bool) -> None:
        self._size, self._is_drawn = size, is_drawn
        self._depth = size if depth is None else min(depth, size)
        self.tokens: list[int] = []
        self._parents: list[int] = []
        self._children: list[Child] = []
        self._chances: list[float] = []
        """Of each node to be kept: the product of the confidences on its way."""
        self._depths = {ROOT: 0}
        """Of each node, how many lead to it, itself included."""
        self._unread = {ROOT}
        self._num_before = 0
        """Nodes before the step in hand."""

    def add(self, parent: int, child: Child) -> None:
        """One more node."""
        node = len(self.tokens)
        self._depths[node] = 1 + self._depths[parent]
        if self._depths[node] < self._depth:
            self._unread.add(node)
        self.tokens.append(child.token)
        self._parents.append(parent)
        self._children.append(child)
        self._chances.append(self._chance(parent) * child.sure)

    def children_of(self, node: int) -> list[int]:
        """In the order in which they came."""
        return [one for one, parent in enumerate(self._parents) if parent == node]

    def tips(self, row: int, most: int) -> list[Tip]:
        """The likeliest nodes that were not read, of those whose children might be checked."""
        if self._is_drawn:
            is_open = len(self.tokens) < self._size
            ranked = self._ranked() if is_open else []
        else:
            ranked = self._ranked()[: self._size]
            least = self._chance(ranked[-1]) if len(ranked) == self._size else 0.0
            # A child is no likelier than its parent: it would have to be likelier than the last.
            ranked = [node for node in ranked if self._chance(node) > least]
        waiting = [ROOT] if ROOT in self._unread else ranked
        found = [node for node in waiting if node in self._unread][: most if self._size else 0]
        self._unread -= set(found)
        return [Tip(row, node, tuple(ancestors(self._parents, node))) for node in found]

    def places_to_draw(self, sure: Mapping[int, float], branches: int) -> Iterator[int]:
        """Where children are to be drawn, one for each time that a node is named.

        What a child is worth is its `kept_chance` along the way to it. It is drawn if that is more
        than the last token is worth of the chain that all rows that are left could buy behind the
        best node; rows that no such chain could have go to whatever is worth most. Tokens are not
        looked at.

        Args:
            sure: Of the nodes that were read, the largest mass of the law.
            branches: Children of one node at most.
        """
        heap = [(-self._chance(node) * kept_chance(one, 0), node, 1) for node, one in sure.items()]
        heapq.heapify(heap)
        left = self._size - len(self.tokens)
        if not heap or not left:
            return
        best, node, _ = heap[0]
        length = min(left, self._depth - self._depths[node])
        least = -best * kept_chance(sure[node], 0) ** (length - 1)
        spare = left - length
        while heap and left and (-heap[0][0] >= least or spare):
            worth, node, number = heapq.heappop(heap)
            spare -= -worth < least
            yield node
            left -= 1
            if number < branches:
                worth = self._chance(node) * kept_chance(sure[node], number)
                heapq.heappush(heap, (-worth, node, number + 1))

    def end_step(self) -> float:
        """How sure the best of the nodes is that have come since this was last asked."""
        new = self._children[self._num_before :]
        self._num_before = len(self._children)
        return max((child.sure for child in new), default=0.0)

    def finished(self) -> Finished:
        """The nodes that are checked."""
        nodes = list(range(len(self.tokens))) if self._is_drawn else self._ranked()[: self._size]
        number = {ROOT: ROOT} | {node: place for place, node in enumerate(nodes)}
        children = [self._children[node] for node in nodes]
        return Finished(
            [child.token for child in children],
            [number[self._parents[node]] for node in nodes],
            [child.sure for child in children],
            [child.law for child in children if child.law is not None],
        )

    def _ranked(self) -> list[int]:
        """All nodes, the likeliest first, and each behind its parent."""
        return sorted(range(len(self.tokens)), key=lambda node: -self._chances[node])

    def _chance(self, node: int) -> float:
        return 1.0 if node == ROOT else self._chances[node]
