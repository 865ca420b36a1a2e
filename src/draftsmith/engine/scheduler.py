"""Which sequences run: they join and leave between rounds, whoever asked for them.

Every caller of an engine, from any thread, puts its sequences into the one scheduler. Whoever waits
for news runs the next step for all of them, so that callers share passes of the target.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from draftsmith.drafters.contract import Drafter
from draftsmith.engine import clock
from draftsmith.engine.baton import Baton
from draftsmith.engine.caches import Caches
from draftsmith.engine.control.account import Account
from draftsmith.engine.control.contract import NO_FORCED, Choice, Controller, RoundReport
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.control.own import common_gammas, with_own
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.requests.traces import logprobs_of
from draftsmith.engine.room import CacheStatistics
from draftsmith.engine.rounds.capturing import graphed_rounds
from draftsmith.engine.rounds.own_drafts import OwnDrafts
from draftsmith.engine.rounds.step import Decided, run_round
from draftsmith.engine.threads import one_torch_thread
from draftsmith.engine.tickets import News, Ticket
from draftsmith.models.contract import AS_IT_COMES, CacheSettings, LanguageModel
from draftsmith.models.follower import Follower

__all__ = ["News", "Scheduler", "Ticket"]

PROMPT_BUDGET = 1024
"""Tokens of prompts that a step reads before its round: others wait no longer than that."""


class Scheduler:
    """Rounds over sequences that come and go; safe to be called from any thread.

    A step takes in what was added, reads prompts as far as its budget goes, in the order in which
    they came, and runs one round over the sequences whose prompts are read. If anything is raised
    on the way (an interrupt, a lack of memory), the caches are let go of and read again in the next
    step: what was committed stays, and no sequence is lost.

    Args:
        target: The model whose law is sampled.
        draft: What guesses; None decodes plainly.
        controller: How many tokens to draft for each sequence.
        max_batch_size: Sequences that run at once; the rest wait for their turn.
        prompt_budget: Tokens of prompts that a step reads at most; None reads them whole.
        memory: What the cache of each model may hold.
    """

    def __init__(
        self,
        target: LanguageModel,
        draft: Drafter | None,
        controller: Controller,
        max_batch_size: int,
        prompt_budget: int | None = PROMPT_BUDGET,
        memory: CacheSettings = AS_IT_COMES,
    ) -> None:
        self._controller = controller
        self._draft = draft
        self._max_batch_size = max_batch_size
        self._prompt_budget = prompt_budget
        self._is_alone = not target.uses_torch_threads and not (draft and draft.uses_torch_threads)
        self._graphed = graphed_rounds(target, draft)
        self._caches = Caches(target, draft, memory, is_graphed=self._graphed is not None)
        self._start_anew()

    def _start_anew(self) -> None:
        """Without sequences, in this process: a fork inherits neither threads nor their locks."""
        self._process = os.getpid()
        self._account = Account(self._controller)
        self._baton = Baton()
        self._is_asked_to_cancel = False
        self._added: deque[Ticket] = deque()
        self._waiting: deque[Ticket] = deque()
        self._live: list[Ticket] = []
        self._read_s = 0.0
        """Time that prompts took since the last round: the next round's."""
        self._heard_s = 0.0
        """Time that the controller took to hear of the last round: the next round's, too."""
        self._booked_s = 0.0
        """Time that writing the last round down took, as in plain decoding: the same."""
        self._close_caches()

    def _close_caches(self) -> None:
        self._caches.close()
        self._own_drafts = OwnDrafts()
        if self._graphed is not None:
            self._graphed.forget()

    @property
    def controller(self) -> Controller:
        """How many tokens to draft for each sequence: who decides it."""
        return self._controller

    @controller.setter
    def controller(self, controller: Controller) -> None:
        self._account.settle()
        self._controller, self._account = controller, Account(controller)

    @property
    def num_held(self) -> int:
        """Sequences that have not left."""
        return len(self._added) + len(self._waiting) + len(self._live)

    def add(self, samples: Iterable[Sample], *, is_followed: bool = True) -> list[Ticket]:
        """Take sequences in; they run from the next step on. Never waits for a round.

        Args:
            samples: Each with nothing done yet.
            is_followed: False has no news but the last, which tells all.

        Returns:
            A ticket for each.
        """
        self._check_process()
        tickets = [Ticket(sample, is_followed=is_followed) for sample in samples]
        self._added.extend(tickets)
        return tickets

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """End sequences as they stand, from the next step on. Never waits for a round.

        Args:
            tickets: Those that have left already stay as they are.
        """
        # A forked child collects what its parent's threads left behind, and the baton is theirs.
        self._check_process()
        for ticket in tickets:
            ticket.is_cancelled = True
        self._is_asked_to_cancel = True
        # Their memory is wanted back now; if somebody is at work, he sees to it when he is done. It
        # may be this very thread, in the middle of a step: garbage is collected anywhere.
        if self._baton.take_if_free():
            self._let_go()

    def advance(self, tickets: Sequence[Ticket]) -> None:
        """Wait for news of some sequences, or that all have left; run steps where nobody does.

        Args:
            tickets: Some of this scheduler's.
        """

        def is_heard() -> bool:
            return any(one.news for one in tickets) or all(one.has_left for one in tickets)

        self._check_process()
        while self._baton.take(is_heard):
            self._run_step()

    def end(self, tickets: Sequence[Ticket]) -> None:
        """End sequences as they stand, once the round in hand is over.

        Args:
            tickets: Some of this scheduler's.
        """
        self._check_process()
        for ticket in tickets:
            ticket.is_cancelled = True
        if self._baton.take(lambda: all(ticket.has_left for ticket in tickets)):
            self._is_asked_to_cancel = True
            self._let_go()

    def step(self) -> list[Ticket]:
        """Take in, read, run a round.

        Returns:
            Those that have news.

        Raises:
            DraftError: If a drafter breaks its contract, or runs the engine that it drafts for.
        """
        self._check_process()
        self._baton.take()
        return self._run_step()

    def _run_step(self) -> list[Ticket]:
        """A step of the baton's holder, who lets go of it."""
        try:
            return self._step()
        except BaseException:
            try:
                self._caches.empty()
            finally:
                self._close_caches()
            raise
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """See to what was cancelled meanwhile, and hand the baton on."""
        try:
            while self._is_asked_to_cancel:
                self._is_asked_to_cancel = False
                self._take_in()
        finally:
            self._baton.let_go()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._start_anew()

    def _step(self) -> list[Ticket]:
        ended = self._take_in()
        if not self._live:
            return ended
        target = self._caches.target
        with one_torch_thread(self._is_alone):
            start = clock.perf_counter()
            ready = self._read_prompts(target)
            self._read_s += clock.perf_counter() - start
            if ready:
                self._round(target, ready)
        return [*ended, *self._report(ready)]

    # --- who is in ----------------------------------------------------------------------------

    def _take_in(self) -> list[Ticket]:
        """Admit what was added, drop what was cancelled; those that are done."""
        while self._added:
            self._waiting.append(self._added.popleft())
        for ticket in (*self._live, *self._waiting):
            if ticket.is_cancelled and ticket.sample.finish_reason is None:
                ticket.sample.abort()
        # A step that was cut off may have finished some, and not told.
        ended = [one for one in (*self._live, *self._waiting) if one.sample.finish_reason]
        if ended:
            self._waiting = deque(one for one in self._waiting if one not in ended)
            self._report(ended)
        while self._waiting and len(self._live) < self._max_batch_size:
            ticket = self._waiting.popleft()
            ticket.started_at = time.perf_counter()
            self._live.append(ticket)
        return ended

    def _read_prompts(self, target: Follower) -> list[Ticket]:
        """Read what the budget allows; those whose prompts are read, in order."""
        left = self._prompt_budget
        ready: list[Ticket] = []
        may_read = self._make_room()
        for ticket in self._live:
            sample = ticket.sample
            is_read = target.has_read(sample)
            if not is_read and left != 0 and (may_read is None or may_read(sample)):
                num_read = target.read(sample, left)
                left = None if left is None else left - num_read
                is_read = target.has_read(sample)
                self._caches.count(sample)
            if is_read:
                ready.append(ticket)
        return ready

    def _make_room(self) -> Callable[[Sample], bool] | None:
        """Let some wait, if there is no memory for all; who may read, None for everybody."""
        if not self._caches.may_be_full:
            return None
        before = self._caches.num_preemptions
        found = self._caches.admission([ticket.sample for ticket in self._live], self.controller)
        if self._graphed is not None and self._caches.num_preemptions > before:
            self._graphed.forget()
        return found

    def _report(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Note what was added to some sequences; finished ones leave."""
        for ticket in tickets:
            sample = ticket.sample
            is_over = sample.finish_reason is not None
            if is_over:
                self._account.settle()
            if is_over or ticket.is_followed:
                completion = sample.completion() if is_over else None
                text = sample.output.take(is_final=is_over)
                ticket.news.append(News(text, sample.take_new_rounds(), completion))
            if is_over:
                ticket.has_left = True
                self._caches.release(sample.id)
                self._own_drafts.release(sample.id)
        if any(ticket.has_left for ticket in tickets):
            self._live = [ticket for ticket in self._live if not ticket.has_left]
            if not self._live:
                self._rest()
        return list(tickets)

    def _rest(self) -> None:
        """Without sequences, nothing stays but what is kept of their beginnings."""
        self._caches.rest()
        self._own_drafts = OwnDrafts()
        if self._graphed is not None:
            self._graphed.forget()

    # --- memory -------------------------------------------------------------------------------

    def cache_statistics(self) -> CacheStatistics:
        """What the target's cache holds now, and what became of it so far."""
        return self._caches.statistics()

    @property
    def most_tokens(self) -> int | None:
        """Of one sequence, so that it fits when it is alone; None where nobody says."""
        return self._caches.most_tokens(self.controller)

    def forget_prefixes(self) -> None:
        """Let go of what is kept of sequences that have ended."""
        self._check_process()
        self._baton.take()
        try:
            self._caches.forget_kept()
            if not self._live:
                self._rest()
        finally:
            self._let_go()

    # --- a round ------------------------------------------------------------------------------

    def _round(self, target: Follower, tickets: Sequence[Ticket]) -> None:
        """Draft, check and commit one round of every sequence."""
        start = clock.perf_counter()
        samples = [ticket.sample for ticket in tickets]
        is_first = not all(sample.records for sample in samples)
        self._account.begin(samples)
        choice, own_s = Choice([0] * len(samples)), self._heard_s
        if self._draft is not None:
            asked = clock.perf_counter()
            choice = self.controller.choose(samples)
            own_s += clock.perf_counter() - asked
        has_own = any(sample.own_draft for sample in samples)
        if has_own:
            choice = with_own(choice, samples)
        decided = self._decided(target, samples, choice, has_own)
        forced = decided.forced or [NO_FORCED] * len(samples)
        for sample, outcome, free in zip(samples, decided.outcomes, forced, strict=True):
            tokens, drafted, num_accepted, *_ = outcome
            logprobs = logprobs_of(outcome, sample.params.logprobs)
            tested = None if outcome.kept is None else outcome.num_tested
            sample.commit_round(tokens, drafted, num_accepted, logprobs, tested, free)
            if outcome.error is not None and sample.finish_reason is None:
                sample.fail(outcome.error)
        records = [sample.records[-1] for sample in samples]
        told = clock.perf_counter()
        read_s, self._read_s = self._read_s, 0.0
        total_s = told - start + self._heard_s + self._booked_s + read_s
        # Capturing is done once, whatever is drafted: it is on both sides of the books.
        read_s += decided.captured_s
        draft_s = decided.draft_s + decided.caught_up_s
        draft_s += decided.draft_share * (total_s - own_s - read_s - draft_s)
        choice, sure = decided.choice, decided.confidences
        # What a drafter of a sequence's own does tells nothing of the engine's.
        gammas = common_gammas(choice, samples) if has_own else choice.gammas
        report = RoundReport(
            samples,
            gammas,
            records,
            sure,
            is_first,
            draft_s,
            total_s,
            own_s,
            read_s,
            decided.forced,
            decided.caught_up_s,
            decided.tree_tests,
        )
        hearing = clock.perf_counter()
        self.controller.observe(report)
        self._heard_s = clock.perf_counter() - hearing
        # What plain decoding takes as well.
        self._booked_s = hearing - told

    def _decided(
        self, target: Follower, samples: Sequence[Sample], choice: Choice, has_own: bool
    ) -> Decided:
        """The verdicts on a round, of this choice or of one that was under way."""
        caches = self._caches
        drafter = caches.draft_state if any(choice.gammas) else caches.open_draft_state
        if self._graphed is not None and not has_own:
            controller = self.controller
            is_fixed = isinstance(controller, FixedGamma)
            gamma = controller.gamma if is_fixed and self._draft is not None else None
            flown = self._graphed.run(target, drafter, samples, choice, gamma)
            if flown is not None:
                caught_up_s = flown.caught_up_s if any(flown.choice.gammas) else 0.0
                times = 0.0, flown.draft_share, caught_up_s, flown.captured_s
                return Decided(flown.outcomes, flown.choice, [[] for _ in samples], *times)
        turns = [sample.turn(gamma) for sample, gamma in zip(samples, choice.gammas, strict=True)]
        drafter = drafter if any(choice.gammas) else None
        if has_own:
            drafter = self._own_drafts.beside(drafter, samples)
        return run_round(target, drafter, self._name, turns, choice)

    @property
    def _name(self) -> str:
        return "" if self._draft is None else self._draft.name
