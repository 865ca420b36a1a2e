"""All that rounds have shown: what they take, what drafts are worth, and the ledger."""

import math
from collections.abc import Sequence

from draftsmith.engine.control.books import Books, Rest
from draftsmith.engine.control.chances import (
    PLACES,
    ByConfidence,
    ByPosition,
    Chances,
    Gain,
    Tally,
)
from draftsmith.engine.control.contract import Ledger, RoundReport, Sample
from draftsmith.engine.control.costs import CheckCost, DraftCost, Load
from draftsmith.engine.control.doubt import Doubt
from draftsmith.engine.control.unread import Unread

__all__ = ["Learnt"]

_ASKED_FADE = 0.9
"""Of how often a drafter had something to propose, a round of the text."""
_FREE = 0.08
"""A draft that takes less of a plain round is asked for as long as the ledger bears it, and judged
when it is there: what followed before is worth the most where it is seldom there."""
_PAUSED = 2.0
"""Plain rounds that one without a drafted row may take before the machine has paused in it: what is
less is noise, of which the shorter rounds have as much."""
_AGED = 8
"""Rounds after which what was learnt of drafts is made as old as it is: one is next to nothing."""


class Learnt:
    """What rounds of all batches have shown, kept from run to run.

    Args:
        is_drawn: Whether drafts are drawn token by token.
    """

    def __init__(self, *, is_drawn: bool) -> None:
        self.is_judged = not is_drawn
        """Whether a pace judges drafts when they are there; of a drafter that says it draws, once
        one has."""
        self.books = Books()
        self.check = CheckCost()
        self.draft = DraftCost()
        self.by_position = Chances(ByPosition())
        self.by_confidence = Chances(ByConfidence())
        self.gain = Gain()
        self.unread = Unread()
        self.asked: dict[int, Tally] = {}
        """How often each sequence's drafter had something to propose."""
        self.idle = 0
        """Plain rounds since the last draft."""
        self.plain_at: dict[int, int] = {}
        """The last plain round of each batch size."""
        self.last_rest = Rest()
        self.thought_s = 0.0
        """What the controller takes in a round with drafts."""
        self._doubt = Doubt()
        self._num_unaged = 0
        """Rounds by which what was learnt of drafts is older than it is taken for."""

    def retain(self, ids: Sequence[int]) -> None:
        """Forget sequences that are gone.

        Args:
            ids: Of the batch.
        """
        for learner in (self.by_position, self.by_confidence, self.gain):
            learner.retain(ids)
        self.unread.retain(ids)
        self.asked = {id: self.asked.get(id) or Tally(1.0, 0.0, 1.0) for id in ids}

    def age(self) -> None:
        """What was learnt is as old as the rounds since."""
        if self._num_unaged >= _AGED:
            for learner in (self.by_position, self.by_confidence, self.gain):
                learner.fade(self._num_unaged)
            self._num_unaged = 0

    def is_free(self, plain_s: float) -> bool:
        """Whether asking costs next to nothing, and a pace can judge what comes, if ever any did.

        Args:
            plain_s: What a plain round takes.
        """
        if self.draft.round_s >= _FREE * plain_s:
            return False
        if self.by_confidence.is_known:
            return self.is_judged
        return not self.by_position.is_known

    def catch_up_s(self, sequences: Sequence[Sample], plain_s: float) -> float:
        """What reading takes that the drafter has not read of these yet.

        Args:
            sequences: Of the batch.
            plain_s: What a plain round takes.
        """
        return self.draft.catch_up_s(sum(map(self.unread.of, sequences)), plain_s)

    def end_rest(self, load: Load) -> None:
        """Learn what the last plain rounds took.

        Args:
            load: Of the first of them.
        """
        rest = self.books.end_rest()
        self._num_unaged += rest.num_rounds
        self.idle += rest.num_rounds
        if rest.num_timed:
            self.last_rest = rest
            size, held = load
            amid = Load(size, held + size * (rest.num_timed - 1) / 2)
            self.check.observe_plain(amid, rest.round_s, rest.num_timed, rest.noise)
            self.plain_at[size] = self.books.num_rounds

    def learn(self, report: RoundReport, load: Load, num_unseen: int) -> None:
        """From one round with drafts, or forced tokens.

        Args:
            report: Of it.
            load: What it had before it.
            num_unseen: Tokens that the drafter had to catch up on.
        """
        check_s = report.total_s - report.own_s - report.draft_s - report.read_s
        plain_s = self._plain_s(report, load, check_s) + report.read_s
        self._num_unaged += 1
        self.age()
        if any(report.gammas):
            self._learn_draft(report, load, num_unseen)
        self.books.enter(Ledger(report.total_s, plain_s, report.draft_s, report.own_s, 1, 0))

    def learn_asked(self, rounds: Sequence[tuple[RoundReport, Load]]) -> None:
        """From rounds of one batch whose drafter was asked in vain, in a row: nothing was checked.

        They are most rounds of a draft that is free to ask.

        Args:
            rounds: Each with what it had before it; none read a prompt or had forced tokens.
        """
        reports, load = [report for report, _ in rounds], rounds[-1][1]
        number = len(reports)
        times = [one.total_s - one.own_s - one.draft_s - one.read_s for one in reports]
        self.check.observe(load, load.size, sum(times) / number)
        total_s = sum(one.total_s for one in reports)
        own_s = sum(one.own_s for one in reports)
        draft_s = sum(one.draft_s for one in reports)
        read_s = sum(one.read_s for one in reports)
        # They are plain rounds: what they took is not estimated.
        plain_s = sum(times) + read_s
        self._num_unaged += number
        self.age()
        num_steps = round(sum(one.num_steps for one in reports) / number)
        self.draft.observe(num_steps, 0, draft_s / number, number)
        self._learn_thought(own_s / number, number)
        for place, sequence in enumerate(reports[-1].sequences):
            asked = self.asked[sequence.id]
            for one in reports:
                if one.gammas[place]:
                    asked.add(float(bool(one.confidences[place])), fade=_ASKED_FADE)
            self.unread.note_seen(sequence)
        self._learn_gain(reports[-1], load, num_steps, number)
        self.idle += number
        self.books.enter(Ledger(total_s, plain_s, draft_s, own_s, number, 0))

    def _plain_s(self, report: RoundReport, load: Load, check_s: float) -> float:
        """Learn the cost of the check; what plain decoding would have taken for the same tokens."""
        rows = load.size + report.num_drafted
        num_committed = sum(record.num_committed for record in report.records)
        # Every token beyond one a sequence would have taken its share of a further round.
        num_saved = max(0, num_committed - load.size) / load.size
        if not self.check.is_known:
            self.books.owed += num_saved
            return check_s
        usual_s = plain_s = self.check.plain_s(load)
        if report.is_first:
            # A prompt takes what it takes; speculation has only added drafts and their rows.
            added_s = self.check.seconds(load, rows) - usual_s
            plain_s = max(check_s - added_s, usual_s)
        else:
            # What is beyond both its rows one by one and what such checks have taken is a pause of
            # the machine, which would have met plain decoding, too.
            longest_s = usual_s * max(rows / load.size, _PAUSED)
            trusted_s = self.check.trusted_s(load, rows)
            usual_s *= self.check.observe(load, rows, check_s)
            if math.isfinite(trusted_s):
                paused_s = max(0.0, check_s - max(longest_s, trusted_s))
            else:
                paused_s = self._doubt.paused_s(rows, max(0.0, check_s - longest_s))
            plain_s = usual_s + paused_s
        return plain_s + num_saved * usual_s

    def _learn_draft(self, report: RoundReport, load: Load, num_unseen: int) -> None:
        """What drafts took and kept."""
        if report.caught_up_s > 0:
            self.draft.observe_reading(num_unseen, report.caught_up_s)
            self.draft.observe(report.num_steps, 0, report.draft_s - report.caught_up_s)
        else:
            self.draft.observe(report.num_steps, num_unseen, report.draft_s)
        self._learn_thought(report.own_s)
        columns = zip(report.sequences, report.gammas, report.guesses, strict=True)
        for place, (sequence, gamma, record) in enumerate(columns):
            if gamma == 0:
                continue
            is_proposed = bool(report.confidences[place]) or record.num_drafted > 0
            self.asked[sequence.id].add(float(is_proposed), fade=_ASKED_FADE)
            self.by_position.observe(sequence.id, PLACES[: record.num_tested], record.num_accepted)
            self.by_confidence.observe(sequence.id, report.tests(place), record.num_accepted)
            self.unread.note_seen(sequence)
        if not report.is_first:
            self._learn_gain(report, load, report.num_steps)
        is_idle = not any(record.num_drafted for record in report.guesses)
        self.idle = self.idle + 1 if is_idle else 0

    def _learn_thought(self, own_s: float, num_rounds: int = 1) -> None:
        """What the controller took in each of so many rounds."""
        # A pause of the machine is not the controller's.
        for _ in range(num_rounds):
            thought_s = min(own_s, 2 * self.thought_s or own_s)
            self.thought_s += 0.2 * (thought_s - self.thought_s)

    def _learn_gain(
        self, report: RoundReport, load: Load, num_steps: int, num_rounds: int = 1
    ) -> None:
        rows = load.size + sum(record.num_drafted for record in report.guesses)
        # Not the measured time: noise must not make a draft pay of which nothing is kept.
        plain_s = self.check.plain_s(load)
        drafting_s = num_steps * self.draft.step_s(plain_s)
        seconds = self.check.seconds(load, rows) + drafting_s + self.thought_s
        for sequence, record in zip(report.sequences, report.guesses, strict=True):
            for _ in range(num_rounds):
                self.gain.observe(sequence.id, record.num_committed, seconds / plain_s)
