"""One output in the making: its tokens, its rules, and the single place where it ends."""

import functools
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import torch

from draftsmith.core.constraint import Constraint
from draftsmith.core.laws import History, Law
from draftsmith.core.lenience import ArgmaxLenience
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import RoundRecord, SpeculationStatistics
from draftsmith.core.verify import Verifier
from draftsmith.drafters.contract import SequenceView
from draftsmith.engine.control.contract import NO_FORCED, Forced, Ledger, without
from draftsmith.engine.control.own import OwnDraft
from draftsmith.engine.requests.result import Completion, FinishReason, with_trace_of
from draftsmith.engine.requests.text import OutputText
from draftsmith.engine.requests.traces import Logprobs, Rounds
from draftsmith.engine.rounds.turn import Turn
from draftsmith.kernels.cpu.sampling import NoiseSlot

__all__ = ["Limits", "Sequence"]

_ids = itertools.count()

_record = functools.cache(RoundRecord)
"""There are few different ones, and one a round of every sequence."""


@dataclass(frozen=True)
class Limits:
    """What ends a sequence, beside its stop strings."""

    max_tokens: int
    context_length: int | None
    stop_token_ids: frozenset[int]
    is_over: Callable[[Tokens[int]], bool] | None = None
    """A further rule of the caller's own, asked after every token with all tokens so far."""


@dataclass
class Sequence:
    """The state of one sample of one prompt.

    `commit_round` is the only way in which it grows, token by token, in order. So it ends exactly
    where plain decoding would have ended, wherever in a kept block that may be.
    """

    prompt: list[int]
    source: list[int]
    params: SamplingParams
    law: Law
    draft_law: Law
    verifier: Verifier
    seed: int
    sample_index: int
    limits: Limits
    output: OutputText
    device: torch.device
    lenience: ArgmaxLenience | None = None
    """How greedy checks are lossy; None is exact."""
    own_draft: OwnDraft | None = None
    """How it is drafted for, if not as all others are."""
    constraint: Constraint | None = None
    """What the text must follow; its laws know of it."""
    drafts_forced: bool = True
    """Whether tokens that it forces are drafted; False, without a draft, is plain decoding."""
    id: int = field(default_factory=_ids.__next__)
    tokens: list[int] = field(init=False)
    records: list[RoundRecord] = field(default_factory=list)
    num_guessed: int = 0
    """Drafted tokens that no grammar forced."""
    num_guesses_kept: int = 0
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    ledger: Ledger | None = None
    """Its share of the rounds' times, where the controller keeps a ledger."""
    num_cached_tokens: int | None = None
    """Tokens of the prompt that were recalled rather than read; None before it is read."""

    def __post_init__(self) -> None:
        """Start with the prompt, in a list that only grows."""
        self.tokens = list(self.prompt)
        self._num_taken = 0, len(self.prompt)
        """Rounds and tokens that were told of."""
        self._rejected: list[int | None] = []
        """Of each round, the drafted token whose place the emitted one took."""
        self._logprobs: list[Logprobs] = []
        """Of each output token, if asked for."""
        self._end = len(self.prompt) + self.limits.max_tokens
        """Tokens that there may be."""
        if self.limits.context_length is not None:
            self._end = min(self._end, self.limits.context_length)
        self.is_each_asked_about = self.output.has_text or self.limits.is_over is not None
        self._ids = torch.empty(0, dtype=torch.long, device=self.device)
        """The first tokens as a tensor, for laws that look at them; room for more behind."""
        self._num_ids = 0

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        return self._end - len(self.tokens)

    def view(self, gamma: int) -> SequenceView:
        """What a drafter may see, with at most `gamma` tokens wanted.

        The last token of the room is the round's emitted one, so it is never drafted.
        """
        if gamma:
            gamma = max(0, min(gamma, self.room - 1))
        return SequenceView(self.id, self.tokens, len(self.prompt), self.source, gamma)

    def turn(self, gamma: int) -> Turn:
        """The round in hand, with at most `gamma` tokens wanted."""
        return Turn(
            view=self.view(gamma),
            law=self.law,
            draft_law=self.draft_law,
            verifier=self.verifier,
            make_history=self.history,
            make_slot=self.noise_slot,
            device=self.device,
            lenience=self.lenience,
            constraint=self.constraint,
            drafts_forced=self.drafts_forced and not self._is_plain_on_purpose,
            room=self.room,
        )

    @property
    def _is_plain_on_purpose(self) -> bool:
        return self.own_draft is not None and self.own_draft.gamma == 0

    def noise_slot(self) -> NoiseSlot:
        """Whose noise the round in hand has, and from where on."""
        return NoiseSlot(self.seed, self.sample_index, len(self.records), len(self.tokens))

    def history(self) -> History:
        """The committed tokens as tensors."""
        count = len(self.tokens)
        if self._ids.shape[0] < count:
            # Doubling keeps the cost of a long output linear.
            self._ids, self._num_ids = self._ids.new_zeros(2 * count + 64), 0
        if self._num_ids < count:
            new = self.tokens[self._num_ids :]
            self._ids[self._num_ids : count] = torch.tensor(new, device=self.device)
            self._num_ids = count
        num_prompt = len(self.prompt)
        return History(self._ids[:num_prompt], self._ids[num_prompt : len(self.tokens)])

    def commit_round(
        self,
        tokens: list[int],
        drafted: Tokens[int] = (),
        num_accepted: int = 0,
        logprobs: Tokens[Logprobs] = (),
        num_tested: int | None = None,
        forced: Forced = NO_FORCED,
    ) -> None:
        """Append a round's tokens up to the one that ends the sequence, and note the round.

        Args:
            tokens: The kept drafted tokens, and the emitted one if there is one.
            drafted: What was proposed.
            num_accepted: How much of it was kept.
            logprobs: Of `tokens`, if asked for.
            num_tested: How many were held against the target, one behind another; None says that
                the first that was not kept is the last of them.
            forced: What of the draft nobody guessed.
        """
        num_before = len(self.tokens)
        self._append(tokens)
        num_committed = len(self.tokens) - num_before
        num_drafted = len(drafted)
        num_kept = num_accepted
        if num_tested is None:
            num_tested = min(num_accepted + 1, num_drafted)
        rejected: int | None = None
        if num_committed <= num_accepted:
            # Drafts behind the end were never wanted: plain decoding would not have come there.
            num_kept = num_tested = num_committed
        elif num_accepted < num_tested:
            rejected = drafted[num_accepted]
        record = _record(num_drafted, num_tested, num_kept, num_committed)
        self.records.append(record)
        guessed = without(record, forced) if any(forced) else record
        self.num_guessed += guessed.num_drafted
        self.num_guesses_kept += guessed.num_accepted
        self._rejected.append(rejected)
        self._logprobs += logprobs[:num_committed]

    def take_new_rounds(self) -> Rounds:
        """What the rounds since the last call have left behind."""
        first, start = self._num_taken
        self._num_taken = len(self.records), len(self.tokens)
        logprobs = self._logprobs[start - len(self.prompt) :]
        return Rounds(
            self.tokens[start:], self.records[first:], self._rejected[first:], logprobs, first
        )

    def fail(self, message: str) -> None:
        """End with an error; what was committed stays."""
        self._finish(FinishReason.ERROR, None)
        self.error = message

    def abort(self) -> None:
        """End because the caller stopped."""
        self._finish(FinishReason.ABORT, None)

    def completion(self) -> Completion:
        """The finished sample."""
        assert self.finish_reason is not None
        output = self.tokens[len(self.prompt) :]
        rounds = Rounds(output, self.records, self._rejected, self._logprobs, 0)
        completion = Completion(
            index=self.sample_index,
            text=self.output.text,
            token_ids=tuple(output),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            statistics=SpeculationStatistics.from_rounds(self.records),
            trace=(),
            error=self.error,
            ledger=self.ledger,
            prompt_tail=self.output.prompt_tail,
            num_cached_tokens=self.num_cached_tokens or 0,
            num_guessed=self.num_guessed,
            num_guesses_kept=self.num_guesses_kept,
        )
        return with_trace_of(completion, rounds.traces)

    def _append(self, tokens: list[int]) -> None:
        """Append tokens up to the one that ends the sequence."""
        room = self.room
        if (
            len(tokens) < room
            and not self.is_each_asked_about
            and self.limits.stop_token_ids.isdisjoint(tokens)
        ):
            # None of them can end it.
            self.tokens += tokens
            return
        for token in tokens:
            room -= 1
            self._commit(token, room)
            if self.finish_reason is not None:
                break

    def _commit(self, token: int, room: int) -> None:
        """Append a token, after which so many may still come."""
        self.tokens.append(token)
        is_stopped = self.output.push(token)
        if token in self.limits.stop_token_ids:
            self._finish(FinishReason.STOP, token)
        elif is_stopped:
            self._finish(FinishReason.STOP, self.output.stopped_by)
        elif self.limits.is_over is not None and self.limits.is_over(self.tokens):
            self._finish(FinishReason.STOP, None)
        elif room <= 0:
            self._finish(FinishReason.LENGTH, None)

    def _finish(self, reason: FinishReason, stop_reason: str | int | None) -> None:
        if self.output.close() and reason is not FinishReason.STOP:
            # The stop string's last bytes were held back as an unfinished character.
            reason, stop_reason = FinishReason.STOP, self.output.stopped_by
        self.finish_reason, self.stop_reason = reason, stop_reason
