"""What rounds did, counted by the engine's thread as they are delivered."""

from collections import Counter
from collections.abc import Sequence

from draftsmith.core.statistics import RoundRecord

__all__ = ["Counts"]


class Counts:
    """Since the server was started; written by one thread, read by any."""

    def __init__(self) -> None:
        self._rounds: Counter[RoundRecord] = Counter()
        """There are few different ones."""

    def add(self, records: Sequence[RoundRecord]) -> None:
        """Count some rounds of one text."""
        for record in records:
            self._rounds[record] += 1

    def _kinds(self) -> list[tuple[RoundRecord, int]]:
        # A copy, because the other thread may add a kind meanwhile.
        return list(self._rounds.copy().items())

    @property
    def num_tokens(self) -> int:
        """Generated tokens."""
        return sum(record.num_committed * count for record, count in self._kinds())

    @property
    def num_rounds(self) -> int:
        """Rounds of all texts, those of plain decoding included."""
        return sum(count for _, count in self._kinds())

    @property
    def num_drafts(self) -> int:
        """Rounds that drafted."""
        return sum(count for record, count in self._kinds() if record.num_drafted)

    @property
    def num_draft_tokens(self) -> int:
        """Drafted tokens."""
        return sum(record.num_drafted * count for record, count in self._kinds())

    @property
    def num_accepted_tokens(self) -> int:
        """Drafted tokens that were kept."""
        return sum(record.num_accepted * count for record, count in self._kinds())

    @property
    def drafted_per_position(self) -> list[int]:
        """Rounds that drafted each position."""
        return _reaching([(record.num_drafted, count) for record, count in self._kinds()])

    @property
    def tested_per_position(self) -> list[int]:
        """Rounds that compared the draft at each position with the target."""
        return _reaching([(record.num_tested, count) for record, count in self._kinds()])

    @property
    def accepted_per_position(self) -> list[int]:
        """Rounds that kept the draft at each position."""
        return _reaching([(record.num_accepted, count) for record, count in self._kinds()])

    @property
    def drafted_lengths(self) -> dict[int, int]:
        """Rounds by how many tokens they drafted."""
        found: Counter[int] = Counter()
        for record, count in self._kinds():
            found[record.num_drafted] += count
        return dict(sorted(found.items()))


def _reaching(lengths: Sequence[tuple[int, int]]) -> list[int]:
    """Entry i is the number of lengths above i; lengths with how many there are of each."""
    longest = max((length for length, _ in lengths), default=0)
    return [sum(count for length, count in lengths if length > place) for place in range(longest)]
