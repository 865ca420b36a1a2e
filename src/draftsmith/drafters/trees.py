"""Trees while a drafter grows them: which nodes to read, and the pass that reads them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from draftsmith.core.trees import ROOT

__all__ = ["Growth", "Tip", "TreePass", "tree_pass"]


class Tip(NamedTuple):
    """A node of a growing tree whose children are to be found."""

    row: int
    """An index into `DraftContext.sequences`."""
    node: int
    """Its number among the drafted tokens of the sequence; -1 is the newest committed token."""
    path: tuple[int, ...]
    """The nodes on the way to it, itself included; empty for the newest committed token."""


@runtime_checkable
class Growth(Protocol):
    """The trees of one round while a drafter grows them: see `DraftContext.grow`."""

    def tips(self) -> Sequence[Tip]:
        """The nodes to read next, each once; none when the trees are grown.

        Returns:
            First the newest committed tokens, then nodes whose parents were read before.
        """
        ...

    def token(self, tip: Tip, node: int) -> int:
        """The id of a drafted token.

        Args:
            tip: Of whose sequence.
            node: Its number.

        Returns:
            The id.
        """
        ...

    def branch(self, logits: Float[Tensor, "tips some_vocab"]) -> None:
        """Give children to the nodes that `tips` named last.

        Args:
            logits: The drafter's behind each of them, in order.
        """
        ...


class TreePass(NamedTuple):
    """What is fed, as `Rows` takes it."""

    tokens: list[list[int]]
    parents: list[list[int]]
    places: list[tuple[int, int]]
    """Of each node to be read, its line of the pass and its place there."""


def tree_pass(growth: Growth, tips: Sequence[Tip], feeds: Mapping[int, Sequence[int]]) -> TreePass:
    """The pass that reads some nodes.

    A row of a cache holds a text and no tree, so that nodes which were read in an earlier pass are
    read again; a pass over few rows takes little longer than one over one.

    Args:
        growth: The trees.
        tips: The nodes.
        feeds: Of each sequence of them, the committed tokens to be fed before its nodes.
    """
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    found: dict[tuple[int, int], tuple[int, int]] = {}
    of: dict[int, list[Tip]] = {row: [] for row in feeds}
    for tip in tips:
        of[tip.row].append(tip)
    for line, (row, feed) in enumerate(feeds.items()):
        own, above = list(feed), list(range(-1, len(feed) - 1))
        place = {ROOT: len(feed) - 1}
        for tip in of[row]:
            for before, node in zip((ROOT, *tip.path), tip.path, strict=False):
                if node not in place:
                    place[node] = len(own)
                    own.append(growth.token(tip, node))
                    above.append(place[before])
            found[row, tip.node] = line, place[tip.node]
        tokens.append(own)
        parents.append(above)
    return TreePass(tokens, parents, [found[tip.row, tip.node] for tip in tips])
