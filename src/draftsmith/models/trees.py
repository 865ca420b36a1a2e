"""The tokens of one pass as a tree: each follows another of them, or what the row holds.

A tree is its tokens' parents: of each the index of the one that it follows, less than its own; -1
for those that follow what the row holds.
"""

from collections.abc import Sequence

__all__ = ["check_parents", "depths_of", "is_path", "stem_of"]


def check_parents(parents: Sequence[int], num_tokens: int) -> None:
    """Every token follows one before it.

    Raises:
        AssertionError: One does not.
    """
    assert len(parents) == num_tokens, "every token of a tree has a parent"
    assert all(-1 <= parent < index for index, parent in enumerate(parents))


def depths_of(parents: Sequence[int]) -> list[int]:
    """How many of the tokens are before each, on its way from what the row holds.

    Example:
        >>> depths_of([-1, 0, 0, 2])
        [0, 1, 1, 2]
    """
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return depths


def stem_of(parents: Sequence[int]) -> int:
    """How many of the first tokens each follow the one before.

    Example:
        >>> stem_of([-1, 0, 1, 1, 3])
        3
    """
    return next((i for i, parent in enumerate(parents) if parent != i - 1), len(parents))


def is_path(parents: Sequence[int], path: Sequence[int]) -> bool:
    """Whether these tokens follow each other, the first of them what the row holds.

    Example:
        >>> is_path([-1, 0, 0, 2], [0, 2, 3]), is_path([-1, 0, 0, 2], [0, 1, 3])
        (True, False)
    """
    return [parents[index] for index in path] == [-1, *path[:-1]][: len(path)]
