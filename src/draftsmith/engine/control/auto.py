"""Gamma "auto": what pays, from measured costs and recent acceptance, within a ledger."""

from collections.abc import Sequence

import numpy as np

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.scheduling import Candidate, Schedule, best_schedule
from draftsmith.engine.control.acceptance import Acceptance
from draftsmith.engine.control.confidence import Confidence
from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample
from draftsmith.engine.control.costs import CheckCost, DraftCost
from draftsmith.engine.control.fixed import at_most
from draftsmith.engine.control.gain import Gain
from draftsmith.engine.control.pacing import Costs, RatePace

__all__ = ["AutoGamma"]

_ALLOWANCE = 0.01
"""Share of plain decoding's time that speculation may lose."""
_GRANT = 6
"""Plain rounds that it may lose besides, once: what finding out costs."""
_WARM_UP = 3
"""Plain rounds that are timed before the first draft."""
_REFRESH = 192
"""Rounds after which a plain one is timed again."""
_HORIZON = 256
"""Tokens that a sequence is taken to have before it, unless it has less room."""
_RECHECK = 8
"""Plain rounds after which a sequence that drafts nothing is thought over again."""
_USUAL = 2
"""Tokens that a drafter has not seen in a round after a drafting one: the emitted one, and the
last draft where all were kept."""
_CURIOSITY = 0.005
"""Share of plain decoding's time that drafts may cost which are not expected to pay: what they
find out is worth as much. So a cheap one is tried often, a dear one seldom."""
_MOST_PATIENCE = 256.0
"""Plain rounds after which any draft is tried again, if the ledger bears it."""
_FREE = 0.005
"""A draft that takes less of a plain round is always asked for, and judged when it is there."""
_CAPS = (MAX_GAMMA, 16, 8, 4)
"""The longest draft that a pace may let grow, if the ledger bears it."""
_FIRST = 2
"""Tokens of the very first draft, beside the prompt: what else it takes to read the prompt."""


class AutoGamma:
    """What pays, from measured costs and recent acceptance; never much slower than plain decoding.

    Costs and acceptance are learnt from the rounds themselves and kept from run to run. A ledger
    holds the time spent against what plain decoding would have taken; what could overdraw it is
    not tried.

    Args:
        allowance: Share of plain decoding's time that speculation may lose.
        grant: Plain rounds that it may lose besides, once.
    """

    def __init__(self, allowance: float = _ALLOWANCE, grant: float = _GRANT) -> None:
        self.ledger = Ledger()
        self._allowance = allowance
        self._grant = grant
        self._check = CheckCost()
        self._draft = DraftCost()
        self._acceptance = Acceptance()
        self._confidence = Confidence()
        self._gain = Gain()
        self._num_seen: dict[int, int] = {}
        """Tokens of each sequence that the drafter has seen."""
        self._idle = 0
        """Plain rounds since the last draft."""
        self._rests = 0
        """Plain rounds until drafting is thought over again."""
        self._plain_at: dict[int, int] = {}
        """The last plain round of each batch size."""
        self._pace: RatePace | None = None
        """Of the last round that had one."""
        self._first_draft_s: float | None = None
        self._left_out: set[int] = set()
        """Sequences whose catching up cannot be paid in the round in hand."""
        self._reading_s = 0.0
        """What the dearest catching up took."""
        self._num_unseen = 0
        """Tokens that the drafter must catch up on in the round in hand."""

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """The best gammas, or zeros where plain decoding is best, due, or all that can be paid.

        With a drafter that tells how sure it is, they only say who is drafted for; a pace ends
        each draft.
        """
        self._retain(sequences)
        size = len(sequences)
        if not self.ledger.num_rounds:
            # One prompt is read on trust.
            self._num_unseen = self._unseen(sequences[0])
            return Choice([at_most(_FIRST, sequences[0]), *[0] * (size - 1)])
        if self._is_plain_due(size):
            return Choice([0] * size)
        self._left_out = set()
        choice = self._affordable(sequences)
        # One long prompt must not stop the others' drafts: the dearest readings are left out.
        unread = sorted((one for one in sequences if self._unseen(one) > 0), key=self._unseen)
        num_left_out = 1
        while choice is None and num_left_out < size and num_left_out <= len(unread):
            self._left_out = {one.id for one in unread[-num_left_out:]}
            choice = self._affordable(sequences)
            num_left_out *= 2
        return choice or Choice([0] * size)

    def _affordable(self, sequences: Sequence[Sample]) -> Choice | None:
        """The best choice, plain decoding included; None if the ledger does not bear it."""
        size = len(sequences)
        costs = self._costs(sequences)
        if self._is_free(size):
            # A token for each sequence: the pace decides when it knows what there is.
            gammas = tuple(self._at_most(1, sequence) for sequence in sequences)
            seconds = float(costs.check[sum(gammas)] + costs.draft[max(gammas)])
        else:
            if self._rests > 0:
                self._rests -= 1
                return Choice([0] * size)
            schedule = self._worthwhile(sequences, costs)
            if not any(schedule.gammas):
                schedule = self._probe(sequences, costs)
            gammas, seconds = schedule.gammas, schedule.seconds
        bearable_s = self._bearable_s(sequences)
        if seconds > bearable_s:
            return None
        return self._paced(sequences, gammas, costs, bearable_s)

    def _paced(
        self, sequences: Sequence[Sample], gammas: Sequence[int], costs: Costs, bearable_s: float
    ) -> Choice:
        """Who is drafted for, as long as the pace lets them, and the ledger could bear."""
        plain_s = float(costs.check[0])
        caps = list(gammas)
        for cap in _CAPS if self._confidence.is_known else ():
            pairs = zip(sequences, gammas, strict=True)
            longest = [self._at_most(cap, one) if gamma > 0 else 0 for one, gamma in pairs]
            if costs.check[sum(longest)] + costs.draft[max(longest)] <= bearable_s:
                caps = [max(pair) for pair in zip(gammas, longest, strict=True)]
                break
        drafting = zip(sequences, gammas, strict=True)
        self._num_unseen = sum(self._unseen(one) for one, gamma in drafting if gamma > 0)
        loss_s = float(costs.check[sum(gamma > 0 for gamma in gammas)]) - plain_s
        is_curious = self._idle >= self._patience(loss_s, plain_s)
        ids = [sequence.id for sequence in sequences]
        self._pace = RatePace(ids, self._confidence, costs, int(is_curious))
        return Choice(caps, self._pace)

    def observe(self, report: RoundReport) -> Ledger:
        """Learn what the round cost and kept; add it to the ledger."""
        size = len(report.sequences)
        rows = size + sum(record.num_drafted for record in report.records)
        check_s = max(report.total_s - report.draft_s, 1e-9)
        is_plain = not any(report.gammas)
        if not report.is_first:
            self._check.observe(rows, check_s)
            if is_plain:
                self._plain_at[size] = self.ledger.num_rounds
        self._learn_draft(report)
        for sequence, gamma, record, confidences in zip(
            report.sequences, report.gammas, report.records, report.confidences, strict=True
        ):
            is_proposed = bool(confidences) or record.num_drafted > 0
            self._acceptance.observe(sequence.id, gamma, record, is_proposed=is_proposed)
            self._confidence.observe(
                sequence.id, confidences[: record.num_tested], record.num_accepted
            )
            if gamma > 0:
                self._num_seen[sequence.id] = len(sequence.tokens)
        if not (report.is_first or is_plain):
            self._learn_gain(report, rows)
        for learner in (self._acceptance, self._confidence, self._gain):
            learner.end_round()
        is_idle = not any(record.num_drafted for record in report.records)
        self._idle = self._idle + 1 if is_idle else 0
        line = self._line(report, rows, check_s, is_plain=is_plain)
        self.ledger += line
        return line

    def _line(self, report: RoundReport, rows: int, check_s: float, *, is_plain: bool) -> Ledger:
        size = len(report.sequences)
        num_committed = sum(record.num_committed for record in report.records)
        plain_s = check_s
        if self._check.is_known:
            usual_s = self._check.seconds(size)
            added_s = self._check.seconds(rows) - usual_s
            # A prompt takes what it takes; speculation has only added drafts and their rows.
            plain_s = max(check_s - added_s, usual_s) if report.is_first else usual_s
            # Every token beyond one a sequence would have taken its share of a further round.
            plain_s += max(0, num_committed - size) / size * usual_s
        if is_plain:
            plain_s = report.total_s
        return Ledger(report.total_s, plain_s, report.draft_s, 1, int(is_plain))

    def _retain(self, sequences: Sequence[Sample]) -> None:
        ids = {sequence.id for sequence in sequences}
        self._acceptance.retain(ids)
        self._confidence.retain(ids)
        self._gain.retain(ids)
        self._num_seen = {id: self._num_seen.get(id, 0) for id in ids}

    def _is_plain_due(self, size: int) -> bool:
        """Whether a plain round of about this batch size must be timed."""
        near = [n for n in self._plain_at if abs(n - size) <= size // 4]
        if not near:
            return True
        if sum(self._check.num_seen(n) for n in near) < _WARM_UP:
            return True
        return self.ledger.num_rounds - max(self._plain_at[n] for n in near) > _REFRESH

    def _worthwhile(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """The best draft, or none where plain decoding is expected to be faster."""
        if not self._confidence.is_known:
            return self._best(sequences, costs)
        is_worthwhile = self._gain.expected([sequence.id for sequence in sequences]) > 0
        schedule = self._best(sequences, costs, min_depth=1)
        return schedule if is_worthwhile else schedule._replace(gammas=(0,) * len(sequences))

    def _best(self, sequences: Sequence[Sample], costs: Costs, min_depth: int = 0) -> Schedule:
        depths = [self._at_most(MAX_GAMMA, sequence) for sequence in sequences]
        candidates = [
            Candidate(
                self._acceptance.chances(sequence.id, depth),
                self._acceptance.availability(sequence.id),
            )
            for sequence, depth in zip(sequences, depths, strict=True)
        ]
        return best_schedule(candidates, costs.check, costs.draft, min_depth=min_depth)

    def _costs(self, sequences: Sequence[Sample]) -> Costs:
        size = len(sequences)
        check = self._check.table(size * (1 + MAX_GAMMA))[size:]
        draft = self._draft.step_s(float(check[0])) * np.arange(MAX_GAMMA + 1.0)
        # Catching up is paid once, for all the rounds to come.
        draft[1:] += self._catch_up_s(sequences, float(check[0])) * 2 / self._horizon(sequences)
        return Costs(check, draft)

    def _is_free(self, size: int) -> bool:
        """Whether asking costs next to nothing, and a pace can judge what comes."""
        is_judged = self._pace is not None and self._pace.has_cut and self._confidence.is_known
        return is_judged and self._draft.round_s < _FREE * self._check.seconds(size)

    def _probe(self, sequences: Sequence[Sample], costs: Costs) -> Schedule:
        """A draft that is not expected to pay, where the last one was long enough ago."""
        size = len(sequences)
        schedule = self._best(sequences, costs, min_depth=1)
        plain_s = float(costs.check[0])
        loss_s = schedule.seconds - plain_s + self._catch_up_s(sequences, plain_s)
        patience = self._patience(loss_s, plain_s)
        if self._idle >= patience:
            return schedule
        self._rests = max(0, min(_RECHECK, round(patience) - self._idle))
        return Schedule((0,) * size, float(size), plain_s)

    def _patience(self, loss_s: float, plain_s: float) -> float:
        """Plain rounds before something is tried that may lose so much."""
        return min(loss_s / (_CURIOSITY * plain_s), _MOST_PATIENCE)

    def _bearable_s(self, sequences: Sequence[Sample]) -> float:
        """The longest round that the ledger bears if not one draft is kept."""
        plain_s = self._check.seconds(len(sequences))
        catch_up_s = self._catch_up_s(sequences, plain_s)
        limit_s = self._allowance * self.ledger.plain_s + self._grant * plain_s
        # A draft model must read one prompt before anybody can tell what it is worth.
        on_trust_s = 0.0 if self._gain.is_known else catch_up_s
        limit_s += max(self._first_draft_s or 0.0, on_trust_s)
        saved_s = self._gain.saving * self._horizon(sequences) * plain_s
        if saved_s > 0 and saved_s >= catch_up_s:
            # The next one is paid by what is proven, and so is one before it.
            limit_s += catch_up_s + self._reading_s
        return limit_s - self.ledger.debt_s + plain_s - catch_up_s

    def _horizon(self, sequences: Sequence[Sample]) -> int:
        """Tokens over which catching up must pay."""
        rooms = [one.room for one in sequences if one.id not in self._left_out]
        return max(1, min(_HORIZON, *rooms))

    def _catch_up_s(self, sequences: Sequence[Sample], plain_s: float) -> float:
        return self._draft.catch_up_s(sum(map(self._unseen, sequences)), plain_s)

    def _unseen(self, sequence: Sample) -> int:
        unseen = len(sequence.tokens) - self._num_seen[sequence.id]
        return unseen if unseen > _USUAL and sequence.id not in self._left_out else 0

    def _at_most(self, gamma: int, sequence: Sample) -> int:
        return 0 if sequence.id in self._left_out else at_most(gamma, sequence)

    def _learn_draft(self, report: RoundReport) -> None:
        if any(report.gammas):
            if self._first_draft_s is None:
                self._first_draft_s = report.draft_s
            steps = _num_steps(report)
            self._draft.observe(steps, self._num_unseen, report.draft_s)
            if self._num_unseen > 0:
                plain_s = self._check.seconds(len(report.sequences))
                reading_s = self._draft.catch_up_s(self._num_unseen, plain_s)
                self._reading_s = max(self._reading_s, reading_s)

    def _learn_gain(self, report: RoundReport, rows: int) -> None:
        # Not the measured time: noise must not make a draft pay of which nothing is kept.
        plain_s = self._check.seconds(len(report.sequences))
        steps = _num_steps(report)
        seconds = self._check.seconds(rows) + steps * self._draft.step_s(plain_s)
        for sequence, record in zip(report.sequences, report.records, strict=True):
            self._gain.observe(sequence.id, record.num_committed, seconds / plain_s)


def _num_steps(report: RoundReport) -> int:
    """Of the longest draft as it was proposed; asking takes one, whatever comes of it."""
    drafted = max(record.num_drafted for record in report.records)
    return max(1, drafted, *map(len, report.confidences))
