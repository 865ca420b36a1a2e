"""Gamma "auto": what pays, from measured costs and recent acceptance, within a ledger."""

import math
from collections.abc import Sequence

import numpy as np

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.scheduling import Candidate, Schedule, best_schedule, least_seconds
from draftsmith.engine.control.books import Books, Rest
from draftsmith.engine.control.chances import (
    PLACES,
    ByConfidence,
    ByPosition,
    Chances,
    Gain,
    Tally,
)
from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample
from draftsmith.engine.control.costs import CheckCost, DraftCost, Load
from draftsmith.engine.control.fixed import at_most
from draftsmith.engine.control.pacing import Costs, RatePace
from draftsmith.engine.control.unread import Unread

__all__ = ["AutoGamma"]

_ALLOWANCE = 0.008
"""Share of plain decoding's time that speculation may lose: 1 %, less what our clock cannot see."""
_GRANT = 3
"""Plain rounds that it may lose before that share is as much: what finding out costs."""
_WARM_UP = 3
"""Plain rounds that are timed before the first draft."""
_SURE = 3.0
"""Standard errors of a plain round's expected time: a smaller gain may be none."""
_REFRESH = 192
"""Rounds after which a plain one is timed again."""
_SHORTEST_REST, _LONGEST_REST = 8, 32
"""Plain rounds after which drafting is thought over again, where the ledger bears none."""
_CURIOSITY = 0.005
"""Share of plain decoding's time that drafts may cost which are not expected to pay: what they
find out is worth as much. So a cheap one is tried often, a dear one seldom."""
_MOST_PATIENCE = 256.0
"""Plain rounds after which any draft is tried again, if the ledger bears it."""
_FREE = 0.02
"""A draft that takes less of a plain round is asked for as long as the ledger bears it, and judged
when it is there: what followed before is worth the most where it is seldom there."""
_CAPS = (MAX_GAMMA, 16, 8, 4)
"""The longest draft that a pace may let grow, if the ledger bears it."""
_FIRST = 2
"""Tokens of the very first draft, beside the prompt: what else it takes to read the prompt."""
_ASKED_FADE = 0.9
"""Of how often a drafter had something to propose, a round of the text."""
_DEPTHS = np.arange(MAX_GAMMA + 1.0)


class AutoGamma:
    """What pays, from measured costs and recent acceptance; never much slower than plain decoding.

    Costs and acceptance are learnt from the rounds themselves and kept from run to run. A ledger
    holds the time spent, its own included, against what plain decoding would have taken; what
    could overdraw it is not tried. While drafts do not pay, rounds are plain and cost next to
    nothing: a count goes down until it is time to think again.

    Args:
        allowance: Share of plain decoding's time that speculation may lose.
        grant: Plain rounds that it may lose before that share is as much.
    """

    def __init__(self, allowance: float = _ALLOWANCE, grant: float = _GRANT) -> None:
        self._books = Books()
        self._rested = self._books.rested
        self._allowance = allowance
        self._grant = grant
        self._check = CheckCost()
        self._draft = DraftCost()
        self._by_position = Chances(ByPosition())
        self._by_confidence = Chances(ByConfidence())
        self._gain = Gain()
        self._num_unaged = 0
        """Rounds by which what was learnt of drafts is older than it is taken for."""
        self._ids: list[int] = []
        """The batch of the last round."""
        self._load = Load(0)
        """Of the round in hand."""
        self._asked: dict[int, Tally] = {}
        """How often each sequence's drafter had something to propose."""
        self._unread = Unread()
        self._idle = 0
        """Plain rounds since the last draft."""
        self._rests = 0
        """Plain rounds until drafting is thought over again."""
        self._zeros: list[int] = []
        self._plain = Choice(self._zeros)
        """A plain round of this batch."""
        self._plain_at: dict[int, int] = {}
        """The last plain round of each batch size."""
        self._pace: RatePace | None = None
        """Of the last round that had one."""
        self._last_rest = Rest()
        self._thought_s = 0.0
        """What the controller takes in a round with drafts."""
        self._candidates: list[Candidate] = []
        """What drafts of the sequences may bring, once it was asked in the round in hand."""
        self._num_unseen = 0
        """Tokens that the drafter must catch up on in the round in hand."""

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        return self._books.ledger

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """The best gammas, or zeros where plain decoding is best, due, or all that can be paid.

        With a drafter that tells how sure it is, they only say who is drafted for; a pace ends
        each draft.
        """
        ids = [one.id for one in sequences]
        if self._rests > 0 and ids == self._ids:
            self._rests -= 1
            return self._plain
        self._end_rest()
        if ids != self._ids:
            self._retain(ids)
        self._load = Load(len(ids), float(sum(len(one.tokens) for one in sequences)))
        if not self._books.num_rounds:
            # One prompt is read on trust.
            self._num_unseen = self._unread.of(sequences[0])
            return Choice([at_most(_FIRST, sequences[0]), *[0] * (len(ids) - 1)])
        num_due = self._num_due()
        if num_due > 0:
            self._rests = num_due - 1
            return self._plain
        self._age()
        return self._think(sequences) or self._plain

    def observe(self, report: RoundReport) -> None:
        """Learn what the round cost and kept; add it to the ledger."""
        is_plain = report.gammas is self._zeros or not any(report.gammas)
        if is_plain and not report.has_forced:
            # All of a rest is learnt at its end: until then nothing depends on it.
            self._rested.append(report[4:9])
            return
        plain_s = self._plain_s_beside(report) + report.read_s
        if not is_plain:
            self._observe_draft(report)
        self._books.enter(Ledger(report.total_s, plain_s, report.draft_s, report.own_s, 1, 0))

    def _end_rest(self) -> None:
        """Learn what the last plain rounds took."""
        rest = self._books.end_rest()
        self._num_unaged += rest.num_rounds
        self._idle += rest.num_rounds
        if rest.num_timed:
            self._last_rest = rest
            size, held = self._load
            amid = Load(size, held + size * (rest.num_timed - 1) / 2)
            self._check.observe_plain(amid, rest.round_s, rest.num_timed, rest.noise)
            self._plain_at[size] = self._books.num_rounds

    def _plain_s_beside(self, report: RoundReport) -> float:
        """Learn the cost of a check; the time that plain decoding would have taken."""
        rows = self._load.size + report.num_drafted
        check_s = report.total_s - report.own_s - report.draft_s - report.read_s
        plain_s = self._plain_s(report, rows, check_s)
        self._num_unaged += 1
        self._age()
        return plain_s

    def _observe_draft(self, report: RoundReport) -> None:
        """Learn from a round with drafts what they took and kept."""
        if report.caught_up_s > 0:
            self._draft.observe_reading(self._num_unseen, report.caught_up_s)
            self._draft.observe(report.num_steps, 0, report.draft_s - report.caught_up_s)
        else:
            self._draft.observe(report.num_steps, self._num_unseen, report.draft_s)
        # A pause of the machine is not the controller's.
        thought_s = min(report.own_s, 2 * self._thought_s or report.own_s)
        self._thought_s += 0.2 * (thought_s - self._thought_s)
        columns = zip(report.sequences, report.gammas, report.guesses, strict=True)
        for place, (sequence, gamma, record) in enumerate(columns):
            if gamma == 0:
                continue
            is_proposed = bool(report.confidences[place]) or record.num_drafted > 0
            self._asked[sequence.id].add(float(is_proposed), fade=_ASKED_FADE)
            self._by_position.observe(sequence.id, PLACES[: record.num_tested], record.num_accepted)
            self._by_confidence.observe(sequence.id, report.tests(place), record.num_accepted)
            self._unread.note_seen(sequence)
        if not report.is_first:
            self._learn_gain(report)
        is_idle = not any(record.num_drafted for record in report.guesses)
        self._idle = self._idle + 1 if is_idle else 0

    def _plain_s(self, report: RoundReport, rows: int, check_s: float) -> float:
        """What plain decoding would have taken for the same tokens."""
        size = self._load.size
        num_committed = sum(record.num_committed for record in report.records)
        # Every token beyond one a sequence would have taken its share of a further round.
        num_saved = max(0, num_committed - size) / size
        if not self._check.is_known:
            self._books.owed += num_saved
            return check_s
        usual_s = plain_s = self._check.plain_s(self._load)
        if report.is_first:
            # A prompt takes what it takes; speculation has only added drafts and their rows.
            added_s = self._check.seconds(self._load, rows) - usual_s
            plain_s = max(check_s - added_s, usual_s)
        else:
            usual_s *= self._check.observe(self._load, rows, check_s)
            plain_s = usual_s
        return plain_s + num_saved * usual_s

    def _think(self, sequences: Sequence[Sample]) -> Choice | None:
        """The best choice that the ledger bears, or a rest until that can have changed."""
        self._unread.left_out, self._rests = set(), _LONGEST_REST - 1
        choice = self._affordable(sequences)
        # One long prompt must not stop the others' drafts: the dearest readings are left out.
        unread = sorted((one for one in sequences if self._unread.of(one) > 0), key=self._unread.of)
        num_left_out = 1
        while choice is None and num_left_out < len(sequences) and num_left_out <= len(unread):
            self._unread.left_out = {one.id for one in unread[-num_left_out:]}
            choice = self._affordable(sequences)
            num_left_out *= 2
        if choice is not None and any(choice.gammas):
            self._rests = 0
        return choice

    def _affordable(self, sequences: Sequence[Sample]) -> Choice | None:
        """The best choice, plain decoding included; None if the ledger does not bear it."""
        costs, self._candidates = self._costs(sequences), []
        plain_s = float(costs.check[0])
        bearable_s = self._bearable_s(sequences, plain_s)
        least_s = plain_s + float(costs.draft[1])
        if least_s > bearable_s:
            self._rest_until(least_s, bearable_s, plain_s)
            return None
        if self._is_free(plain_s):
            # A token for each sequence: the pace decides when it knows what there is.
            gammas = tuple(self._unread.at_most(1, sequence) for sequence in sequences)
            seconds = float(costs.check[sum(gammas)] + costs.draft[max(gammas)])
        else:
            schedule = self._worthwhile(sequences, costs)
            if not any(schedule.gammas):
                schedule = self._probe(sequences, costs)
            gammas, seconds = schedule.gammas, schedule.seconds
        if not any(gammas):
            return self._plain
        if seconds > bearable_s:
            self._rest_until(seconds, bearable_s, plain_s)
            return None
        return self._paced(sequences, gammas, costs, bearable_s)

    def _rest_until(self, seconds: float, bearable_s: float, plain_s: float) -> None:
        """Until the ledger can bear a round of so many seconds."""
        grown_s = max(self._allowance * plain_s - self._last_rest.own_s, 1e-9)
        self._rest(max(float(_SHORTEST_REST), (seconds - bearable_s) / grown_s))

    def _rest(self, num_rounds: float) -> None:
        """So many plain rounds at most, this one among them."""
        self._rests = min(self._rests, max(0, int(min(num_rounds, _LONGEST_REST)) - 1))

    def _paced(
        self, sequences: Sequence[Sample], gammas: Sequence[int], costs: Costs, bearable_s: float
    ) -> Choice:
        """Who is drafted for, as long as the pace lets them, and the ledger could bear."""
        plain_s = float(costs.check[0])
        caps = list(gammas)
        for cap in _CAPS if self._by_confidence.is_known else ():
            pairs = zip(sequences, gammas, strict=True)
            longest = [self._unread.at_most(cap, one) if gamma > 0 else 0 for one, gamma in pairs]
            if costs.check[sum(longest)] + costs.draft[max(longest)] <= bearable_s:
                caps = [max(pair) for pair in zip(gammas, longest, strict=True)]
                break
        drafting = zip(sequences, gammas, strict=True)
        self._num_unseen = sum(self._unread.of(one) for one, gamma in drafting if gamma > 0)
        loss_s = float(costs.check[sum(gamma > 0 for gamma in gammas)]) - plain_s
        is_curious = self._idle >= self._patience(loss_s, plain_s)
        self._pace = RatePace(self._ids, self._by_confidence, costs, int(is_curious))
        return Choice(caps, self._pace)

    def _retain(self, ids: list[int]) -> None:
        """Another batch: forget who is gone, and think again."""
        self._ids, self._rests = ids, 0
        self._zeros = [0] * len(ids)
        self._plain = Choice(self._zeros)
        for learner in (self._by_position, self._by_confidence, self._gain):
            learner.retain(ids)
        self._unread.retain(ids)
        self._asked = {id: self._asked.get(id) or Tally(1.0, 0.0, 1.0) for id in ids}

    def _age(self) -> None:
        """What was learnt is as old as the rounds since."""
        if self._num_unaged:
            for learner in (self._by_position, self._by_confidence, self._gain):
                learner.fade(self._num_unaged)
            self._num_unaged = 0

    def _num_due(self) -> int:
        """Plain rounds of about this batch size and context to be timed before any draft."""
        size = self._load.size
        near = [one for one in self._plain_at if abs(one - size) <= size // 4]
        num_timed = sum(self._check.num_plain(one) for one in near)
        if num_timed < _WARM_UP:
            return _WARM_UP - num_timed
        gain = self._gain.expected(self._ids)
        wanted = (_SURE * size * self._check.noise / gain) ** 2 if gain > 0 else 0.0
        if num_timed < wanted:
            # As many again: they tell of the noise as well.
            return math.ceil(min(wanted - num_timed, num_timed, _LONGEST_REST))
        last = max(self._plain_at[one] for one in near)
        return int(self._books.num_rounds - last > _REFRESH or self._check.is_far(self._load))

    def _worthwhile(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """The best draft, or none where plain decoding is expected to be faster."""
        if not self._by_confidence.is_known:
            return self._best(sequences, costs)
        if self._gain.expected(self._ids) > 0:
            return self._best(sequences, costs, min_depth=1)
        return Schedule((0,) * len(sequences), float(len(sequences)), float(costs.check[0]))

    def _best(self, sequences: Sequence[Sample], costs: Costs, min_depth: int = 0) -> Schedule:
        self._candidates = self._candidates or [self._candidate(one) for one in sequences]
        return best_schedule(self._candidates, costs.check, costs.draft, min_depth=min_depth)

    def _candidate(self, sequence: Sample) -> Candidate:
        places = PLACES[: self._unread.at_most(MAX_GAMMA, sequence)]
        chances = np.array(self._by_position.along(sequence.id, places))
        return Candidate(chances, self._asked[sequence.id].toward(1.0, 0.0))

    def _costs(self, sequences: Sequence[Sample]) -> Costs:
        check = self._check.table(self._load, len(sequences) * MAX_GAMMA)
        plain_s = float(check[0])
        draft = self._draft.step_s(plain_s) * _DEPTHS
        # Catching up is paid once, for all the rounds to come.
        draft[1:] += self._catch_up_s(sequences, plain_s) * 2 / self._unread.horizon(sequences)
        return Costs(check, draft)

    def _is_free(self, plain_s: float) -> bool:
        """Whether asking costs next to nothing, and a pace can judge what comes."""
        is_judged = self._pace is not None and self._pace.has_cut and self._by_confidence.is_known
        return is_judged and self._draft.round_s < _FREE * plain_s

    def _probe(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """A draft that is not expected to pay, where the last one was long enough ago."""
        plain_s = float(costs.check[0])
        catch_up_s = self._catch_up_s(sequences, plain_s)
        available = (self._asked[one.id].toward(1.0, 0.0) for one in sequences)
        # Soon known, and mostly enough to wait on.
        least_s = least_seconds(available, costs.check, costs.draft)
        patience = self._patience(least_s - plain_s + catch_up_s, plain_s)
        if self._idle >= patience:
            schedule = self._best(sequences, costs, min_depth=1)
            patience = self._patience(schedule.seconds - plain_s + catch_up_s, plain_s)
            if self._idle >= patience:
                return schedule
        self._rest(patience - self._idle)
        return Schedule((0,) * len(sequences), float(len(sequences)), plain_s)

    def _patience(self, loss_s: float, plain_s: float) -> float:
        """Plain rounds before something is tried that may lose so much, and the thought itself."""
        return min((loss_s + self._thought_s) / (_CURIOSITY * plain_s), _MOST_PATIENCE)

    def _bearable_s(self, sequences: Sequence[Sample], plain_s: float) -> float:
        """The longest round that the ledger bears if not one draft is kept."""
        catch_up_s = self._catch_up_s(sequences, plain_s)
        # A draft model must read one prompt before anybody can tell what it is worth.
        on_trust_s = 0.0 if self._gain.is_known else catch_up_s
        granted_s = self._grant * plain_s + max(self._draft.first_s, on_trust_s)
        limit_s = max(self._allowance * self._books.entered.plain_s, granted_s)
        saved_s = self._gain.saving * self._unread.horizon(sequences) * plain_s
        if saved_s > 0 and saved_s >= catch_up_s:
            # The next one is paid by what is proven, and so is one before it.
            limit_s += catch_up_s + self._draft.dearest_s
        return limit_s - self._books.entered.debt_s + plain_s - catch_up_s

    def _catch_up_s(self, sequences: Sequence[Sample], plain_s: float) -> float:
        return self._draft.catch_up_s(sum(map(self._unread.of, sequences)), plain_s)

    def _learn_gain(self, report: RoundReport) -> None:
        rows = self._load.size + sum(record.num_drafted for record in report.guesses)
        # Not the measured time: noise must not make a draft pay of which nothing is kept.
        plain_s = self._check.plain_s(self._load)
        drafting_s = report.num_steps * self._draft.step_s(plain_s)
        seconds = self._check.seconds(self._load, rows) + drafting_s + self._thought_s
        for sequence, record in zip(report.sequences, report.guesses, strict=True):
            self._gain.observe(sequence.id, record.num_committed, seconds / plain_s)
