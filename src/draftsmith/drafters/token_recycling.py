"""Token recycling: what the target held likely after a token the last time that it was checked.

Luo et al. 2024: every row of a check is worth keeping, also behind a draft that was rejected.
Beside the last token, which they keep, we keep the last two, which tell more.
"""

from collections.abc import Mapping, Sequence

from draftsmith.core.values import check_whole, require

__all__ = ["NUM_SUCCESSORS", "SuccessorTable"]

NUM_SUCCESSORS = 8
"""Ids that are kept of each row."""
_MOST_CONTEXTS = 32_768
_NONE: tuple[int, ...] = ()
_SHIFT = 32
"""Bits of an id in the key of a pair."""


class SuccessorTable:
    """The likeliest next ids after one token and after two, as they were seen last.

    Of each kind, the contexts that were seen last are kept: an entry takes about 400 bytes.

    Args:
        most_contexts: Of each kind; the older half is dropped when there are more.

    Raises:
        InvalidRequestError: If `most_contexts` is less than 2.

    Example:
        >>> table = SuccessorTable()
        >>> table.note(5, 6, [7, 8])
        >>> table.after(5, 6), table.after(1, 6)
        (((7, 8), (7, 8)), ((), (7, 8)))
    """

    def __init__(self, most_contexts: int = _MOST_CONTEXTS) -> None:
        self._most = check_whole("most_contexts", most_contexts)
        require(self._most >= 2, "most_contexts", "2 or more", most_contexts)
        self._pairs: dict[int, tuple[int, ...]] = {}
        self._tokens: dict[int, tuple[int, ...]] = {}

    @classmethod
    def of(
        cls,
        pairs: Mapping[int, tuple[int, ...]],
        tokens: Mapping[int, tuple[int, ...]],
        most_contexts: int = _MOST_CONTEXTS,
    ) -> "SuccessorTable":
        """A table that holds what `contexts` of another gave."""
        table = cls(most_contexts)
        for kept, given in ((table._pairs, pairs), (table._tokens, tokens)):
            for key, row in given.items():
                _put(kept, key, row, table._most)
        return table

    def contexts(self) -> tuple[Mapping[int, tuple[int, ...]], Mapping[int, tuple[int, ...]]]:
        """All rows after two tokens and after one, by a number that stands for these."""
        return self._pairs, self._tokens

    def __len__(self) -> int:
        """Contexts that are kept, of both kinds."""
        return len(self._pairs) + len(self._tokens)

    def note(self, before: int, token: int, successors: Sequence[int]) -> None:
        """Keep what was likely after `before` and `token`, the likeliest first."""
        found = tuple(successors[:NUM_SUCCESSORS])
        _put(self._tokens, token, found, self._most)
        if before >= 0:
            _put(self._pairs, before << _SHIFT | token, found, self._most)

    def after(self, before: int, token: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What was likely after the two, and after the token alone; empty where never seen."""
        pair = self._pairs.get(before << _SHIFT | token, _NONE) if before >= 0 else _NONE
        return pair, self._tokens.get(token, _NONE)


def _put(
    table: dict[int, tuple[int, ...]], key: int, successors: tuple[int, ...], most: int
) -> None:
    # Taken out and put in: the order of a dict is by age then.
    table.pop(key, None)
    table[key] = successors
    if len(table) > most:
        for old in list(table)[: len(table) - most // 2]:
            del table[old]
