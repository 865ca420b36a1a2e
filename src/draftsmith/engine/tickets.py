"""What the owner of a sequence holds while a scheduler runs it, and what rounds tell him."""

from collections import deque

from draftsmith.engine.requests.result import Completion, TokenTrace
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.requests.traces import Rounds

__all__ = ["News", "Ticket"]


class News:
    """What rounds have added to one sequence: one round, or all where nobody follows."""

    __slots__ = ("completion", "rounds", "text")

    def __init__(self, text: str, rounds: Rounds, completion: Completion | None) -> None:
        self.text = text
        self.rounds = rounds
        self.completion = completion
        """The finished sample, with its last news."""

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """Of the new tokens; made when they are asked for."""
        return self.rounds.traces()


class Ticket:
    """One sequence in a scheduler's hands, and what its owner has not fetched yet."""

    def __init__(self, sample: Sample, *, is_followed: bool) -> None:
        self.sample = sample
        self.is_followed = is_followed
        """Whether there is news of every round, or of the end alone."""
        self.started_at: float | None = None
        """When it was admitted, by `time.perf_counter`."""
        self.is_cancelled = False
        self.has_left = False
        """Whether the scheduler is done with it; the last news has the completion."""
        self.news: deque[News] = deque()
