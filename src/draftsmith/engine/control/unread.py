"""What a drafter has not seen of each sequence, and who is left out because it is too much."""

from collections.abc import Iterable, Sequence

from draftsmith.engine.control.contract import Sample
from draftsmith.engine.control.fixed import at_most

__all__ = ["Unread"]

_HORIZON = 256
"""Tokens that a sequence is taken to have before it, unless it has less room."""
_USUAL = 2
"""Tokens that a drafter has not seen in a round after a drafting one: the emitted one, and the
last draft where all were kept."""


class Unread:
    """Tokens that a drafter must catch up on before it can draft."""

    def __init__(self) -> None:
        self._num_seen: dict[int, int] = {}
        """Tokens of each sequence that the drafter has seen."""
        self.left_out: set[int] = set()
        """Sequences whose catching up cannot be paid in the round in hand."""

    def retain(self, ids: Iterable[int]) -> None:
        """Forget who is gone; of who is new nothing was seen."""
        self._num_seen = {id: self._num_seen.get(id, 0) for id in ids}

    def note_seen(self, sequence: Sample) -> None:
        """The drafter has all of it."""
        self._num_seen[sequence.id] = len(sequence.tokens)

    def of(self, sequence: Sample) -> int:
        """Tokens beyond the few of every round; none where it is left out."""
        unseen = len(sequence.tokens) - self._num_seen[sequence.id]
        return unseen if unseen > _USUAL and sequence.id not in self.left_out else 0

    def horizon(self, sequences: Sequence[Sample]) -> int:
        """Tokens over which catching up must pay."""
        rooms = [one.room for one in sequences if one.id not in self.left_out]
        return max(1, min(_HORIZON, *rooms))

    def at_most(self, gamma: int, sequence: Sample) -> int:
        """Tokens that may be drafted: none where it is left out."""
        return 0 if sequence.id in self.left_out else at_most(gamma, sequence)
