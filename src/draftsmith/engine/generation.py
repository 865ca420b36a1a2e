"""One run of the engine: rounds over a batch until every sequence has ended."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters.contract import Drafter
from draftsmith.engine.control.contract import Choice, Controller, Ledger, RoundReport
from draftsmith.engine.logprobs import traced
from draftsmith.engine.result import Completion, FinishReason, GenerationResult, StreamEvent
from draftsmith.engine.round import run_round
from draftsmith.engine.sequence import Sequence as Sample
from draftsmith.engine.threads import one_torch_thread
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower

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

    The whole loop is three steps: admit waiting samples, run a round, report what it added.
    """

    def __init__(
        self,
        target: LanguageModel,
        draft: Drafter | None,
        controller: Controller,
        max_batch_size: int,
        jobs: Sequence[Job],
    ) -> None:
        self._target = Follower(target)
        self._draft = draft
        self._controller = controller
        self._max_batch_size = max_batch_size
        self._is_alone = not target.uses_torch_threads and not (draft and draft.uses_torch_threads)
        self._jobs = jobs
        self._live: list[tuple[int, Sample]] = []
        self._waiting = deque(
            (index, sample) for index, job in enumerate(jobs) for sample in job.samples
        )
        self._results: dict[int, GenerationResult] = {}
        self._events: deque[StreamEvent] = deque()
        """What has happened, and was not yielded yet."""
        self._heard_s = 0.0
        """What the controller took to hear of the last round."""

    def __iter__(self) -> Iterator[StreamEvent]:
        """Run to the end, yielding what each round adds to each sample."""
        for index, job in enumerate(self._jobs):
            if not job.samples:
                self._events.append(self._event(index, None, job.completions[0]))
        yield from self._take_events()
        while self._live or self._waiting:
            self._admit()
            with one_torch_thread(self._is_alone):
                self._round()
            self._report()
            yield from self._take_events()

    def abort(self) -> Iterator[StreamEvent]:
        """End every unfinished sample as it stands; what was not yielded yet comes first."""
        self._live += self._waiting
        self._waiting.clear()
        for _, sample in self._live:
            if sample.finish_reason is None:
                sample.abort()
        self._report()
        return self._take_events()

    def results(self) -> list[GenerationResult]:
        """The finished prompts, in order."""
        return [self._results[index] for index in sorted(self._results)]

    def _admit(self) -> None:
        while self._waiting and len(self._live) < self._max_batch_size:
            index, sample = self._waiting.popleft()
            self._jobs[index].started_at = self._jobs[index].started_at or time.perf_counter()
            self._live.append((index, sample))

    def _round(self) -> None:
        """Draft, check and commit one round of every live sample."""
        start = time.perf_counter()
        samples = [sample for _, sample in self._live]
        self._target.release_all_but(samples)
        is_first = not all(sample.records for sample in samples)
        choice, own_s = Choice([0] * len(samples)), self._heard_s
        if self._draft is not None:
            asked = time.perf_counter()
            choice = self._controller.choose(samples)
            own_s += time.perf_counter() - asked
        turns = [sample.turn(gamma) for sample, gamma in zip(samples, choice.gammas, strict=True)]
        outcomes, draft_s = run_round(self._target, self._draft, turns, choice.pace)
        for sample, outcome in zip(samples, outcomes, strict=True):
            tokens = traced(sample, outcome)
            sample.commit_round(tokens, len(outcome.drafted), outcome.num_accepted)
            if outcome.error is not None and sample.finish_reason is None:
                sample.fail(outcome.error)
        records = [sample.records[-1] for sample in samples]
        confidences = [turn.confidences for turn in turns]
        told = time.perf_counter()
        total_s = told - start + self._heard_s
        report = RoundReport(
            samples, choice.gammas, records, confidences, is_first, draft_s, total_s, own_s
        )
        line = self._controller.observe(report)
        if line is not None:
            for sample in samples:
                sample.ledger = line.share(len(samples)) + (sample.ledger or Ledger())
        self._heard_s = time.perf_counter() - told

    def _take_events(self) -> Iterator[StreamEvent]:
        while self._events:
            yield self._events.popleft()

    def _report(self) -> None:
        """Note what the last round added; finished samples leave the batch."""
        reported, self._live = (
            self._live,
            [pair for pair in self._live if pair[1].finish_reason is None],
        )
        for index, sample in reported:
            completion = None
            if sample.finish_reason is not None:
                completion = sample.completion()
                self._jobs[index].completions.append(completion)
            self._events.append(self._event(index, sample, completion))

    def _event(
        self, index: int, sample: Sample | None, completion: Completion | None
    ) -> StreamEvent:
        job = self._jobs[index]
        is_last = len(job.completions) >= max(1, len(job.samples))
        if completion is not None and is_last:
            self._results[index] = job.result()
        result = self._results.get(index) if completion is not None else None
        if sample is None:
            return StreamEvent(index, 0, "", (), completion, result)
        text = sample.output.take(is_final=completion is not None)
        number, traces = sample.sample_index, sample.take_new_traces()
        return StreamEvent(index, number, text, traces, completion, result)
