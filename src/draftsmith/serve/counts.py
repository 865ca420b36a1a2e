"""What rounds did, counted by the engine's thread as they are delivered."""

from collections import Counter
from collections.abc import Sequence

from draftsmith.core.statistics import RoundRecord

__all__ = ["Counts"]


class Counts:
    """Since the server was started; written by one thread, read by any."""

    def __init__(self) -> None:
        self._rounds: Counter[tuple[int, int, int]] = Counter()
        """By drafted, accepted and committed tokens: there are few different ones."""

    def add(self, records: Sequence[RoundRecord]) -> None:
        """Count some rounds of one text."""
        for record in records:
            self._rounds[record.num_drafted, record.num_accepted, record.num_committed] += 1

    def _sorted(self) -> list[tuple[int, int, int, int]]:
        # A copy, because the other thread may add a kind meanwhile.
        return [(*kind, count) for kind, count in self._rounds.copy().items()]

    @property
    def num_tokens(self) -> int:
        """Generated tokens."""
        return sum(committed * count for _, _, committed, count in self._sorted())

    @property
    def num_rounds(self) -> int:
        """Rounds of all texts, those of plain decoding included."""
        return sum(count for *_, count in self._sorted())

    @property
    def num_drafts(self) -> int:
        """Rounds that drafted."""
        return sum(count for drafted, _, _, count in self._sorted() if drafted)

    @property
    def num_draft_tokens(self) -> int:
        """Drafted tokens."""
        return sum(drafted * count for drafted, _, _, count in self._sorted())

    @property
    def num_accepted_tokens(self) -> int:
        """Drafted tokens that were kept."""
        return sum(accepted * count for _, accepted, _, count in self._sorted())

    @property
    def accepted_per_position(self) -> list[int]:
        """Rounds that kept the draft at each position."""
        rounds = self._sorted()
        longest = max((accepted for _, accepted, _, _ in rounds), default=0)
        return [
            sum(count for _, accepted, _, count in rounds if accepted > place)
            for place in range(longest)
        ]

    @property
    def drafted_lengths(self) -> dict[int, int]:
        """Rounds by how many tokens they drafted."""
        found: Counter[int] = Counter()
        for drafted, _, _, count in self._sorted():
            found[drafted] += count
        return dict(sorted(found.items()))
