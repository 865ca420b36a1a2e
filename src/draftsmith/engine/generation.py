"""One call of the engine: its prompts, and the events of their samples."""

import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.requests.result import (
    Completion,
    FinishReason,
    GenerationResult,
    StreamEvent,
)
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.scheduler import News, Scheduler, Ticket
from draftsmith.errors import DraftsmithError

__all__ = ["Generation", "Job"]


@dataclass
class Job:
    """One prompt: its samples, and what has come of them."""

    prompt: tuple[int, ...]
    samples: list[Sample]
    completions: list[Completion] = field(default_factory=list)
    started_at: float | None = None

    @classmethod
    def refused(cls, error: DraftsmithError) -> "Job":
        """A prompt that cannot be served."""
        completion = Completion(
            index=0,
            text="",
            token_ids=(),
            finish_reason=FinishReason.ERROR,
            stop_reason=None,
            statistics=SpeculationStatistics(),
            trace=(),
            error=str(error),
        )
        return cls((), [], [completion])

    def result(self) -> GenerationResult:
        """What has come of this prompt."""
        elapsed = 0.0 if self.started_at is None else time.perf_counter() - self.started_at
        in_order = sorted(self.completions, key=lambda completion: completion.index)
        return GenerationResult(self.prompt, tuple(in_order), elapsed)


class Generation:
    """A run in progress: iterate for its events, or `abort` it and keep what there is.

    Its samples join the engine's batch when it is first iterated, and go on for as long as anybody
    waits for the engine. One that is dropped unfinished is cancelled.
    """

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job]) -> None:
        self._scheduler = scheduler
        self._jobs = jobs
        self._places: dict[Ticket, int] = {}
        """Tickets of samples that have not finished, and the index of their prompts."""
        self._is_started = False
        self._results: dict[int, GenerationResult] = {}
        self._events: deque[StreamEvent] = deque()
        """What has happened, and was not yielded yet."""
        self._heard_s = 0.0
        """What the controller took to hear of the last round."""

    def __iter__(self) -> Iterator[StreamEvent]:
        """Run to the end, yielding what each round adds to each sample."""
        self._start()
        yield from self._take_events()
        while self._places:
            self._scheduler.advance(tuple(self._places))
            self._fetch()
            yield from self._take_events()

    def finish(self) -> list[GenerationResult]:
        """Run to the end; the finished prompts, in order. Nobody hears of the rounds between."""
        self._start(is_followed=False)
        while self._places:
            self._scheduler.advance(tuple(self._places))
            self._fetch(is_told=False)
        self._events.clear()
        return self.results()

    def abort(self) -> Iterator[StreamEvent]:
        """End every unfinished sample as it stands; what was not yielded yet comes first."""
        self._start()
        self._scheduler.end(tuple(self._places))
        self._fetch()
        return self._take_events()

    def results(self) -> list[GenerationResult]:
        """The finished prompts, in order."""
        return [self._results[index] for index in sorted(self._results)]

    def _start(self, *, is_followed: bool = True) -> None:
        if self._is_started:
            return
        self._is_started = True
        for index, job in enumerate(self._jobs):
            if not job.samples:
                self._events.append(self._event(index, None, None))
            for ticket in self._scheduler.add(job.samples, is_followed=is_followed):
                self._places[ticket] = index
        dropped = weakref.finalize(self, self._scheduler.cancel, tuple(self._places))
        dropped.atexit = False

    def _take_events(self) -> Iterator[StreamEvent]:
        while self._events:
            yield self._events.popleft()

    def _fetch(self, *, is_told: bool = True) -> None:
        """Note what has ended; make events of the news, round by round, if anybody is told."""
        rounds = [
            (number, index, ticket, news)
            for ticket, index in self._places.items()
            for number, news in enumerate(_taken(ticket))
        ]
        for _, index, ticket, news in sorted(rounds, key=lambda one: one[0]):
            job = self._jobs[index]
            if ticket.started_at is not None:
                job.started_at = min(job.started_at or ticket.started_at, ticket.started_at)
            if news.completion is not None:
                job.completions.append(news.completion)
                del self._places[ticket]
            if news.completion is not None and len(job.completions) == len(job.samples):
                self._results[index] = job.result()
            if is_told:
                self._events.append(self._event(index, ticket, news))

    def _event(self, index: int, ticket: Ticket | None, news: News | None) -> StreamEvent:
        job = self._jobs[index]
        if ticket is None or news is None:  # a prompt that was refused
            self._results[index] = job.result()
            completion = job.completions[0]
            return StreamEvent(index, 0, "", (), completion, self._results[index])
        result = self._results.get(index)
        number = ticket.sample.sample_index
        return StreamEvent(index, number, news.text, news.traces, news.completion, result)


def _taken(ticket: Ticket) -> Iterator[News]:
    while ticket.news:
        yield ticket.news.popleft()
