"""Gamma "auto": what pays, from measured costs and recent acceptance, within a ledger."""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.scheduling import Candidate, Schedule, best_schedule, least_seconds
from draftsmith.engine.control.chances import PLACES
from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample
from draftsmith.engine.control.costs import Load
from draftsmith.engine.control.fixed import at_most
from draftsmith.engine.control.learnt import Learnt
from draftsmith.engine.control.pacing import Costs, Hearing, RatePace
from draftsmith.engine.control.runs import LONGEST_RUN, Run, Waiting

__all__ = ["AutoGamma"]

_ALLOWANCE = 0.008
"""Share of plain decoding's time that speculation may lose: 1 %, less what our clock cannot see."""
_GRANT, _EARLY = 3, 0.001
"""What finding out may cost before that share is as much: plain rounds, and a share beside them, so
that a text whose first tokens teach nothing is not given up for hundreds of others."""
_WARM_UP = 3
"""Plain rounds that are timed before the first draft."""
_SURE = 3.0
"""Standard errors of a plain round's expected time: a smaller gain may be none."""
_REFRESH = 192
"""Rounds after which a plain one is timed again."""
_SHORTEST_REST, _LONGEST_REST = 8, 32
"""Plain rounds after which drafting is thought over again."""
_LONG_REST = 128
"""The most of them where the ledger bears none: a thought costs as much as it grows in a rest."""
_CURIOSITY = 0.005
"""Share of plain decoding's time that drafts may cost which are not expected to pay: what they
find out is worth as much. So a cheap one is tried often, a dear one seldom."""
_MOST_PATIENCE = 256.0
"""Plain rounds after which any draft is tried again, if the ledger bears it."""
_TIMED = 0.2
"""The most of all rounds that are plain only to be timed, beside a draft that is free to ask: its
gain is small as long as it finds nothing, and no drafter finds what it is not asked for."""
_CAPS = (MAX_GAMMA, 16, 8, 4)
"""The longest draft that a pace may let grow, if the ledger bears it."""
_RISK = 0.25
"""Of what the ledger bears beside a plain round, what a draft may lose that a pace lets grow: one
that a confident drafter gets wrong must leave enough to be tried again."""
_FIRST = 2
"""Tokens of the very first draft, beside the prompt: what else it takes to read the prompt."""
_FIRST_VERDICT = 5
"""Rounds with drafts before they may be found to gain nothing, if the ledger bears them: the first
tokens of a text are the hardest, and what a drafter misses meanwhile it would have to read."""
_DEPTHS = np.arange(MAX_GAMMA + 1.0)


class AutoGamma:
    """What pays, from measured costs and recent acceptance; never much slower than plain decoding.

    Costs and acceptance are learnt from the rounds themselves and kept from run to run. A ledger
    holds the time spent, its own included, against what plain decoding would have taken; what
    could overdraw it is not tried. While drafts do not pay, rounds are plain and cost next to
    nothing: a count goes down until it is time to think again.

    Args:
        allowance: Share of plain decoding's time that speculation may lose.
        grant: Plain rounds that it may lose before that share is as much, beside `_EARLY`.
        is_drawn: Whether drafts are drawn token by token; others are there at once, and are cut.
    """

    def __init__(
        self, allowance: float = _ALLOWANCE, grant: float = _GRANT, *, is_drawn: bool = True
    ) -> None:
        self._allowance = allowance
        self._grant = grant
        self._learnt = Learnt(is_drawn=is_drawn)
        self._rested = self._learnt.books.rested
        self._ids: list[int] = []
        """The batch of the last round."""
        self._load = Load(0)
        """Of the round in hand."""
        self._rests = 0
        """Plain rounds until drafting is thought over again."""
        self._zeros: list[int] = []
        self._plain = Choice(self._zeros)
        """A plain round of this batch."""
        self._pace: RatePace | None = None
        """Of the last round that had one."""
        self._run = Run()
        """Of the last rounds with drafts."""
        self._candidates: list[Candidate] = []
        """What drafts of the sequences may bring, once it was asked in the round in hand."""
        self._num_unseen = 0
        """Tokens that the drafter must catch up on in the round in hand."""

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        # What waits is learnt first.
        self._end_run()
        return self._learnt.books.ledger

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """The best gammas, or zeros where plain decoding is best, due, or all that can be paid.

        With a drafter that tells how sure it is, they only say who is drafted for; a pace ends
        each draft.
        """
        ids = [one.id for one in sequences]
        if self._rests > 0 and ids == self._ids:
            self._rests -= 1
            return self._plain
        if not self._run.is_over and ids == self._ids:
            return self._go_on(sequences)
        self._end_run()
        self._learnt.end_rest(self._load)
        if ids != self._ids:
            self._retain(ids)
        self._load = Load(len(ids), float(sum(len(one.tokens) for one in sequences)))
        if not self._learnt.books.num_rounds:
            # One prompt is read on trust.
            self._num_unseen = self._learnt.unread.of(sequences[0])
            # What is drawn costs a step a token: how far to go is learnt from short drafts first.
            pace = Hearing() if self._learnt.is_judged else None
            return Choice([at_most(_FIRST, sequences[0]), *[0] * (len(ids) - 1)], pace)
        num_due = self._num_due()
        if num_due > 0:
            self._rests = num_due - 1
            return self._plain
        self._learnt.age()
        return self._think(sequences) or self._plain

    def observe(self, report: RoundReport) -> None:
        """Learn what the round cost and kept; add it to the ledger."""
        is_plain = report.gammas is self._zeros or not any(report.gammas)
        if is_plain and not report.has_forced:
            # All of a rest is learnt at its end: until then nothing depends on it.
            self._rested.append(report[4:9])
            return
        self._run.note(Waiting(report, self._load, self._num_unseen))
        if self._run.is_over:
            self._end_run()

    def _end_run(self) -> None:
        """Learn what the last rounds with drafts have shown."""
        if self._run.is_learnt:
            return
        learnt = self._learnt
        debt_s = learnt.books.entered.debt_s
        learnt.is_judged = learnt.is_judged or (self._pace is not None and self._pace.has_cut)
        for in_vain, rounds in groupby(self._run.take(), key=lambda one: one.is_in_vain):
            if in_vain and learnt.check.is_known:
                learnt.learn_asked([(one.report, one.load) for one in rounds])
            else:
                for one in rounds:
                    learnt.learn(one.report, one.load, one.num_unseen)
        self._run.judge(has_won=learnt.books.entered.debt_s < debt_s)

    def _think(self, sequences: Sequence[Sample]) -> Choice | None:
        """The best choice that the ledger bears, or a rest until that can have changed."""
        self._learnt.unread.left_out, self._rests = set(), _LONGEST_REST - 1
        choice = self._affordable(sequences)
        # One long prompt must not stop the others' drafts: the dearest readings are left out.
        unread = sorted(
            (one for one in sequences if self._learnt.unread.of(one) > 0),
            key=self._learnt.unread.of,
        )
        num_left_out = 1
        while choice is None and num_left_out < len(sequences) and num_left_out <= len(unread):
            self._learnt.unread.left_out = {one.id for one in unread[-num_left_out:]}
            choice = self._affordable(sequences)
            num_left_out *= 2
        if choice is not None and any(choice.gammas):
            self._rests = 0
        return choice

    def _affordable(self, sequences: Sequence[Sample]) -> Choice | None:
        """The best choice, plain decoding included; None if the ledger does not bear it."""
        plain_s = self._learnt.check.plain_s(self._load)
        bearable_s = self._bearable_s(sequences, plain_s)
        if bearable_s <= plain_s:
            self._rest_until(plain_s, bearable_s, plain_s)
            return None
        costs, self._candidates = self._costs(sequences), []
        least_s = plain_s + float(costs.draft[1])
        if least_s > bearable_s:
            self._rest_until(least_s, bearable_s, plain_s)
            return None
        is_free = self._learnt.is_free(plain_s)
        if is_free and self._learnt.by_confidence.is_known:
            if num_rests := self._spread((bearable_s - plain_s) / plain_s):
                self._rest(num_rests)
                return self._plain
            # A token for each sequence: the pace decides when it knows what there is.
            gammas = tuple(self._learnt.unread.at_most(1, sequence) for sequence in sequences)
            seconds = float(costs.check[sum(gammas)] + costs.draft[max(gammas)])
        else:
            schedule = self._worthwhile(sequences, costs)
            if not any(schedule.gammas):
                look = self._first_find if is_free else self._probe
                schedule = look(sequences, costs)
            gammas, seconds = schedule.gammas, schedule.seconds
        if not any(gammas):
            return self._plain
        if seconds > bearable_s:
            self._rest_until(seconds, bearable_s, plain_s)
            return None
        return self._paced(sequences, gammas, costs, bearable_s)

    def _spread(self, num_bearable: float) -> float:
        """Plain rounds behind asking in vain, so that what may be lost lasts until a draft pays.

        Args:
            num_bearable: Plain rounds that may be lost still.
        """
        if not self._run.has_lost:
            return 0.0
        self._run.has_lost = False
        return LONGEST_RUN * max(0.0, self._grant / num_bearable - 1) if num_bearable > 0 else 0.0

    def _rest_until(self, seconds: float, bearable_s: float, plain_s: float) -> None:
        """Until the ledger can bear a round of so many seconds."""
        grown_s = max(self._allowance * plain_s - self._learnt.last_rest.own_s, 1e-9)
        num_rounds = max(float(_SHORTEST_REST), (seconds - bearable_s) / grown_s)
        self._rests = int(min(num_rounds, _LONG_REST)) - 1

    def _rest(self, num_rounds: float) -> None:
        """So many plain rounds at most, this one among them."""
        self._rests = min(self._rests, max(0, int(min(num_rounds, _LONGEST_REST)) - 1))

    def _paced(
        self, sequences: Sequence[Sample], gammas: Sequence[int], costs: Costs, bearable_s: float
    ) -> Choice:
        """Who is drafted for, as long as the pace lets them, and the ledger could bear."""
        plain_s = float(costs.check[0])
        caps, capped = list(gammas), self._learnt.unread.at_most
        risked_s = plain_s + _RISK * (bearable_s - plain_s)
        for cap in _CAPS if self._learnt.by_confidence.is_known else ():
            pairs = zip(sequences, gammas, strict=True)
            longest = [capped(cap, one) if gamma > 0 else 0 for one, gamma in pairs]
            if costs.check[sum(longest)] + costs.draft[max(longest)] <= risked_s:
                caps = [max(pair) for pair in zip(gammas, longest, strict=True)]
                break
        drafting = zip(sequences, gammas, strict=True)
        self._num_unseen = sum(self._learnt.unread.of(one) for one, gamma in drafting if gamma > 0)
        loss_s = float(costs.check[sum(gamma > 0 for gamma in gammas)]) - plain_s
        is_curious = self._learnt.idle >= self._patience(loss_s, plain_s)
        self._pace = RatePace(self._ids, self._learnt.by_confidence, costs, int(is_curious))
        self._run.begin(caps, costs, bearable_s, self._learnt.is_free(plain_s))
        return Choice(caps, self._pace)

    def _go_on(self, sequences: Sequence[Sample]) -> Choice:
        """One more round as the last one was thought out."""
        self._run.go_on()
        self._num_unseen = 0
        pairs = zip(self._run.caps, sequences, strict=True)
        caps = [self._learnt.unread.at_most(cap, one) for cap, one in pairs]
        assert self._run.costs is not None
        self._pace = RatePace(self._ids, self._learnt.by_confidence, self._run.costs)
        return Choice(caps, self._pace)

    def _retain(self, ids: list[int]) -> None:
        """Another batch: forget who is gone, and think again."""
        self._ids, self._rests = ids, 0
        self._run.stop()
        self._zeros = [0] * len(ids)
        self._plain = Choice(self._zeros)
        self._learnt.retain(ids)

    def _num_due(self) -> int:
        """Plain rounds of about this batch size and context to be timed before any draft."""
        size = self._load.size
        near = [one for one in self._learnt.plain_at if abs(one - size) <= size // 4]
        num_timed = sum(self._learnt.check.num_plain(one) for one in near)
        if num_timed < _WARM_UP:
            return _WARM_UP - num_timed
        gain = self._learnt.gain.expected(self._ids)
        wanted = (_SURE * size * self._learnt.check.noise / gain) ** 2 if gain > 0 else 0.0
        if self._learnt.is_free(self._learnt.check.plain_s(self._load)):
            wanted = min(wanted, _TIMED * self._learnt.books.num_rounds)
        if num_timed < wanted:
            # As many again: they tell of the noise as well.
            return math.ceil(min(wanted - num_timed, num_timed, _LONGEST_REST))
        last = max(self._learnt.plain_at[one] for one in near)
        return int(
            self._learnt.books.num_rounds - last > _REFRESH or self._learnt.check.is_far(self._load)
        )

    def _worthwhile(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """The best draft, or none where plain decoding is expected to be faster."""
        if not self._learnt.by_confidence.is_known:
            return self._best(sequences, costs)
        gain = self._learnt.gain
        if gain.expected(self._ids) > 0 or gain.num_rounds < _FIRST_VERDICT:
            return self._best(sequences, costs, min_depth=1)
        return Schedule((0,) * len(sequences), float(len(sequences)), float(costs.check[0]))

    def _best(self, sequences: Sequence[Sample], costs: Costs, min_depth: int = 0) -> Schedule:
        self._candidates = self._candidates or [self._candidate(one) for one in sequences]
        return best_schedule(self._candidates, costs.check, costs.draft, min_depth=min_depth)

    def _candidate(self, sequence: Sample) -> Candidate:
        places = PLACES[: self._learnt.unread.at_most(MAX_GAMMA, sequence)]
        chances = np.array(self._learnt.by_position.along(sequence.id, places))
        return Candidate(chances, self._learnt.asked[sequence.id].toward(1.0, 0.0))

    def _costs(self, sequences: Sequence[Sample]) -> Costs:
        check = self._learnt.check.table(self._load, len(sequences) * MAX_GAMMA)
        plain_s = float(check[0])
        draft = self._learnt.draft.step_s(plain_s) * _DEPTHS
        # Catching up is paid once, for all the rounds to come.
        draft[1:] += (
            self._learnt.catch_up_s(sequences, plain_s) * 2 / self._learnt.unread.horizon(sequences)
        )
        return Costs(check, draft)

    def _first_find(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """The draft that would be best if there were one: nothing was found yet."""
        return self._best(sequences, costs, min_depth=1)

    def _probe(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """A draft that is not expected to pay, where the last one was long enough ago."""
        plain_s = float(costs.check[0])
        catch_up_s = self._learnt.catch_up_s(sequences, plain_s)
        available = (self._learnt.asked[one.id].toward(1.0, 0.0) for one in sequences)
        # Soon known, and mostly enough to wait on.
        least_s = least_seconds(available, costs.check, costs.draft)
        patience = self._patience(least_s - plain_s + catch_up_s, plain_s)
        if self._learnt.idle >= patience:
            schedule = self._best(sequences, costs, min_depth=1)
            patience = self._patience(schedule.seconds - plain_s + catch_up_s, plain_s)
            if self._learnt.idle >= patience:
                return schedule
        self._rest(patience - self._learnt.idle)
        return Schedule((0,) * len(sequences), float(len(sequences)), plain_s)

    def _patience(self, loss_s: float, plain_s: float) -> float:
        """Plain rounds before something is tried that may lose so much, and the thought itself."""
        return min((loss_s + self._learnt.thought_s) / (_CURIOSITY * plain_s), _MOST_PATIENCE)

    def _bearable_s(self, sequences: Sequence[Sample], plain_s: float) -> float:
        """The longest round that the ledger bears if not one draft is kept."""
        catch_up_s = self._learnt.catch_up_s(sequences, plain_s)
        # A draft model must read one prompt before anybody can tell what it is worth.
        on_trust_s = 0.0 if self._learnt.gain.is_known else catch_up_s
        granted_s = self._grant * plain_s + max(self._learnt.draft.first_s, on_trust_s)
        plain_so_far_s = self._learnt.books.entered.plain_s
        limit_s = max(self._allowance * plain_so_far_s, granted_s + _EARLY * plain_so_far_s)
        saved_s = self._learnt.gain.saving * self._learnt.unread.horizon(sequences) * plain_s
        if saved_s > 0 and saved_s >= catch_up_s:
            # The next one is paid by what is proven, and so is one before it.
            limit_s += catch_up_s + self._learnt.draft.dearest_s
        return limit_s - self._learnt.books.entered.debt_s + plain_s - catch_up_s
