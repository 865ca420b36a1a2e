"""Draft trees: several guesses for one position, of which a check keeps the ones on one path.

Nodes are numbered as they were drafted, each behind its parent; -1 is the newest committed token.
The target says its own token at the root, and goes to the child that is this token, if there is
one; where there is none it has said the token that ends the round. So the text is the target's
own, token by token, whatever the tree was, as long as no choice of the target depends on the tree:
a tree of certain guesses is checked like this under every verifier, and nothing could keep more
of it (a path can be kept no oftener than the target writes it).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["ROOT", "Walk", "along", "ancestors", "is_chain", "nodes_tested", "walk"]

ROOT = -1
"""The parent of a node that follows the newest committed token."""


class Walk(NamedTuple):
    """What was kept of a tree."""

    path: list[int]
    """Nodes, from the root on."""
    token: int
    """What the target says behind them, which is no node."""


def is_chain(parents: Sequence[int]) -> bool:
    """Whether each node follows the one before it.

    Example:
        >>> is_chain([-1, 0, 1]), is_chain([-1, -1])
        (True, False)
    """
    return all(parent == node - 1 for node, parent in enumerate(parents))


def ancestors(parents: Sequence[int], node: int) -> list[int]:
    """The nodes on the way to a node, itself included, from the root on.

    Example:
        >>> ancestors([-1, -1, 1, 2, 0], 3)
        [1, 2, 3]
    """
    found: list[int] = []
    while node != ROOT:
        found.append(node)
        node = parents[node]
    return found[::-1]


def walk(tokens: Sequence[int], parents: Sequence[int], choose: Callable[[list[int]], int]) -> Walk:
    """Follow the target through a tree.

    Args:
        tokens: Of the nodes.
        parents: Of the nodes.
        choose: The target's token behind a path, which it is asked for once for each path.

    Example:
        >>> said = iter([7, 5, 2])
        >>> walk([4, 7, 5, 6], [-1, -1, 1, 1], lambda path: next(said))
        Walk(path=[1, 2], token=2)
    """
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)
    path: list[int] = []
    while True:
        token = choose(path)
        here = children.get(path[-1] if path else ROOT, ())
        following = next((node for node in here if tokens[node] == token), None)
        if following is None:
            return Walk(path, token)
        path.append(following)


def nodes_tested(parents: Sequence[int], path: Sequence[int]) -> list[int]:
    """The nodes that were held against a token of the target: first the kept, then the others.

    Of the others those come first that stand where the last token of the round was said.

    Example:
        >>> nodes_tested([-1, -1, 1, 1, 0], [1])
        [1, 2, 3, 0]
    """
    kept = set(path)
    places = [*reversed(path), ROOT]
    wrong = [
        node
        for place in places
        for node, parent in enumerate(parents)
        if parent == place and node not in kept
    ]
    return [*path, *wrong]


def along(parents: Sequence[int], chances: Sequence[float]) -> list[float]:
    """The chance that a node is kept: its own, given its parent, times those on the way to it.

    Example:
        >>> along([-1, 0, -1], [0.5, 0.5, 0.25])
        [0.5, 0.25, 0.25]
    """
    found: list[float] = []
    for parent, chance in zip(parents, chances, strict=True):
        found.append(chance if parent == ROOT else found[parent] * chance)
    return found
