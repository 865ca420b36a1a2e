"""The engine: prompts in, rounds until every sequence has ended, results out."""

import secrets
import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from draftsmith.core.params import SamplingParams, check_gamma
from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.engine.logprobs import traced
from draftsmith.engine.request import Prompt, Request, is_single, make_request
from draftsmith.engine.result import Completion, FinishReason, GenerationResult, StreamEvent
from draftsmith.engine.round import Outcome, Turn, run_round
from draftsmith.engine.sequence import Sequence
from draftsmith.errors import DraftsmithError, InvalidRequestError, NotRollbackableError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary

__all__ = ["Engine"]


@dataclass
class _Job:
    """One prompt: its sequences, and what has come of them."""

    index: int
    request: Request
    sequences: list[Sequence]
    completions: list[Completion] = field(default_factory=list)
    started_at: float | None = None

    def result(self) -> GenerationResult:
        """The finished prompt."""
        elapsed = 0.0 if self.started_at is None else time.perf_counter() - self.started_at
        in_order = sorted(self.completions, key=lambda completion: completion.index)
        return GenerationResult(tuple(self.request.prompt), tuple(in_order), elapsed)


class Engine:
    """Generates with a target model, and faster with a drafter; the text's law is the same.

    Each round, every live sequence of the batch gets a draft; one pass of the target checks them
    all, and each sequence keeps its own accepted length. `gamma=0` is plain decoding through the
    same code.

    Args:
        target: The model whose law is sampled.
        tokenizer: Turns text into ids and back; None serves token ids only.
        draft: What guesses; None decodes plainly.
        gamma: Drafted tokens per round, 0 to 32.
        max_batch_size: Sequences that run at once; the rest wait for their turn.
        draft_tokenizer: The draft model's, to be checked against the target's.

    Raises:
        InvalidRequestError: If gamma or the batch size is out of range.
        NotRollbackableError: If drafts are wanted of a target (or a draft) that cannot roll back.
        VocabularyMismatchError: If the draft's tokenizer is not the target's.
    """

    def __init__(
        self,
        target: LanguageModel,
        tokenizer: Tokenizer | None = None,
        draft: Drafter | None = None,
        *,
        gamma: int = 4,
        max_batch_size: int = 16,
        draft_tokenizer: Tokenizer | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise InvalidRequestError(f"max_batch_size must be 1 or more, got {max_batch_size}")
        self.target = target
        self.tokenizer = tokenizer
        self.draft = draft
        self.gamma = check_gamma(gamma) if draft is not None else 0
        self.max_batch_size = max_batch_size
        if self.gamma:
            _check_pair(target, draft)
        if tokenizer and draft_tokenizer and draft:
            check_same_vocabulary(tokenizer, draft_tokenizer, target.traits.name, draft.name)

    def generate(
        self,
        prompts: Prompt | Many[Prompt],
        params: SamplingParams | Many[SamplingParams] | None = None,
    ) -> list[GenerationResult]:
        """Generate for one prompt or many.

        A request of a batch that cannot be served ends with `finish_reason` "error" and the
        others finish; a single prompt that cannot be served raises.

        Args:
            prompts: Text, token ids, or a conversation; or a list of such.
            params: For all of them, or one for each; None is greedy.

        Returns:
            One result a prompt, in order.

        Raises:
            InvalidRequestError: If the only prompt, or the number of params, is not valid.
        """
        results: dict[int, GenerationResult] = {}
        for event in self.stream(prompts, params):
            if event.result is not None:
                results[event.prompt_index] = event.result
        return [results[index] for index in sorted(results)]

    def stream(
        self,
        prompts: Prompt | Many[Prompt],
        params: SamplingParams | Many[SamplingParams] | None = None,
    ) -> Iterator[StreamEvent]:
        """Generate as `generate` does, and yield text as the rounds make it certain.

        Characters are never split, and text that may become part of a stop string is held back.
        Closing the iterator stops the generation.
        """
        jobs = self._jobs(prompts, params)
        waiting: deque[tuple[_Job, Sequence]] = deque()
        for job in jobs:
            if job.completions:
                yield self._event(job, job.completions[0])
            waiting.extend((job, sequence) for sequence in job.sequences)
        target = Follower(self.target)
        live: list[tuple[_Job, Sequence]] = []
        while live or waiting:
            while waiting and len(live) < self.max_batch_size:
                live.append(waiting.popleft())
            self._round(target, live)
            for job, sequence in live:
                yield self._progress(job, sequence)
            live = [pair for pair in live if pair[1].finish_reason is None]

    def _jobs(
        self,
        prompts: Prompt | Many[Prompt],
        params: SamplingParams | Many[SamplingParams] | None,
    ) -> list[_Job]:
        many: Many[Prompt] = [prompts] if is_single(prompts) else prompts  # pyright: ignore[reportAssignmentType] # is_single tells the two apart
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(many)
        if len(params) != len(many):
            raise InvalidRequestError(f"params must be one, or {len(many)}, got {len(params)}")
        return [
            self._job(index, prompt, one, may_raise=len(many) == 1)
            for index, (prompt, one) in enumerate(zip(many, params, strict=True))
        ]

    def _job(self, index: int, prompt: Prompt, params: SamplingParams, may_raise: bool) -> _Job:
        try:
            request = make_request(prompt, params, self.target.traits, self.tokenizer)
        except DraftsmithError as error:
            if may_raise:
                raise
            request = Request.refused(params)
            return _Job(index, request, [], [_refusal(sample, error) for sample in range(params.n)])
        seed = secrets.randbits(64) if params.seed is None else params.seed
        sequences = [
            request.sequence(sample, seed, self.target.device, self.tokenizer)
            for sample in range(params.n)
        ]
        return _Job(index, request, sequences)

    def _round(self, target: Follower, live: list[tuple[_Job, Sequence]]) -> None:
        """Draft, check and commit one round of every live sequence."""
        for job, _ in live:
            job.started_at = job.started_at or time.perf_counter()
        sequences = [sequence for _, sequence in live]
        turns = [
            Turn(
                view=sequence.view(self.gamma),
                law=sequence.law,
                verifier=sequence.verifier,
                history=sequence.history(),
                make_noise=sequence.noise,
            )
            for sequence in sequences
        ]
        target.release_all_but(sequences)
        for sequence, outcome in zip(sequences, run_round(target, self.draft, turns), strict=True):
            _commit(sequence, outcome)

    def _progress(self, job: _Job, sequence: Sequence) -> StreamEvent:
        """What the last round added to a sequence."""
        completion = None
        if sequence.finish_reason is not None:
            completion = sequence.completion()
            job.completions.append(completion)
        text = sequence.output.take(is_final=completion is not None)
        return self._event(job, completion, sequence, text)

    def _event(
        self,
        job: _Job,
        completion: Completion | None,
        sequence: Sequence | None = None,
        text: str = "",
    ) -> StreamEvent:
        is_last = completion is not None and len(job.completions) == job.request.params.n
        tokens = () if sequence is None else sequence.take_new_traces()
        sample = 0 if sequence is None else sequence.sample_index
        result = job.result() if is_last else None
        return StreamEvent(job.index, sample, text, tokens, completion, result)


def _commit(sequence: Sequence, outcome: Outcome) -> None:
    """Append what the verdict kept; an error ends the sequence after it."""
    tokens = traced(sequence, outcome)
    sequence.commit_round(tokens, len(outcome.drafted), outcome.num_accepted)
    if outcome.error is not None and sequence.finish_reason is None:
        sequence.fail(outcome.error)


def _refusal(sample: int, error: DraftsmithError) -> Completion:
    from draftsmith.core.statistics import SpeculationStatistics

    return Completion(
        index=sample,
        text="",
        token_ids=(),
        finish_reason=FinishReason.ERROR,
        stop_reason=None,
        statistics=SpeculationStatistics(),
        trace=(),
        error=str(error),
    )


def _check_pair(target: LanguageModel, draft: Drafter | None) -> None:
    """Refuse speculation where it cannot be done.

    Raises:
        NotRollbackableError: If a model's state cannot be undone.
        InvalidRequestError: If only one of the two is an encoder-decoder.
    """
    models = [target] + ([draft.model] if isinstance(draft, ModelDrafter) else [])
    for model in models:
        if not model.traits.can_rollback:
            raise NotRollbackableError(
                f"{model.traits.name} cannot speculate: {model.traits.why_no_rollback}; "
                "use gamma=0 for plain decoding"
            )
    if len({model.traits.is_encoder_decoder for model in models}) > 1:
        raise InvalidRequestError(
            f"draft {models[1].traits.name} and target {target.traits.name} must both be "
            "encoder-decoder models or both be decoder-only"
        )
