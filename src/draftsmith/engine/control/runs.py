"""Rounds with drafts that one thought is for, and that are learnt together."""

from collections.abc import Sequence
from typing import NamedTuple

from draftsmith.engine.control.contract import RoundReport
from draftsmith.engine.control.costs import Load
from draftsmith.engine.control.pacing import Costs

__all__ = ["LONGEST_RUN", "Run", "Waiting"]

LONGEST_RUN = 8
"""Rounds. A thought amid passes finds nothing of its own in the processor's caches, and takes five
times as long as the next one."""


class Waiting(NamedTuple):
    """A round to be learnt."""

    report: RoundReport
    load: Load
    """What it had before it."""
    num_unseen: int
    """Tokens that the drafter had to catch up on."""

    @property
    def is_in_vain(self) -> bool:
        """Whether the drafter was asked, and nothing was checked: a plain round but for that."""
        report = self.report
        is_plain = not (report.is_first or self.num_unseen or report.caught_up_s)
        return is_plain and not report.has_forced and not report.num_drafted


class Run:
    """How far the last thought reaches, and what has come of it so far.

    A run grows as long as runs win, and begins small again behind one that has lost: what drafts
    show is learnt at its end.
    """

    def __init__(self) -> None:
        self.caps: Sequence[int] = ()
        """The longest drafts, for each sequence."""
        self.costs: Costs | None = None
        """As they were taken to be."""
        self.has_lost = False
        """Whether the last one came out behind plain decoding."""
        self._left = 0
        """Rounds that are still to come."""
        self._longest = 1
        self._bearable_s = 0.0
        """The longest round that the ledger bears now, as far as it is known."""
        self._plain_s = self._longest_s = 0.0
        """Of a plain round, and of one whose drafts all are as long as they may be."""
        self._waiting: list[Waiting] = []

    @property
    def is_over(self) -> bool:
        """Whether the next round needs a thought."""
        return self._left == 0

    @property
    def is_learnt(self) -> bool:
        """Whether no round waits."""
        return not self._waiting

    def begin(self, caps: Sequence[int], costs: Costs, bearable_s: float, is_free: bool) -> None:
        """With the round in hand.

        Args:
            caps: The longest drafts, for each sequence.
            costs: What rounds are taken to cost.
            bearable_s: The longest round that the ledger bears.
            is_free: Whether asking for drafts costs next to nothing.
        """
        self.caps, self.costs = caps, costs
        self._left = (LONGEST_RUN if is_free else self._longest) - 1
        self._bearable_s = bearable_s
        self._plain_s = float(costs.check[0])
        self._longest_s = float(costs.check[sum(caps)] + costs.draft[max(caps)])

    def go_on(self) -> None:
        """One more round."""
        self._left -= 1

    def stop(self) -> None:
        """Another batch: the next round needs a thought."""
        self._left = 0

    def note(self, one: Waiting) -> None:
        """It waits until the run ends."""
        self._waiting.append(one)
        if self._left:
            num_committed = sum(record.num_committed for record in one.report.records)
            plain_s = self._plain_s * num_committed / one.load.size
            self._bearable_s += plain_s + one.report.read_s - one.report.total_s
            if self._bearable_s < self._longest_s:
                self._left = 0

    def take(self) -> list[Waiting]:
        """The rounds that wait, in order; none waits any more."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def judge(self, has_won: bool) -> None:
        """Whether what was learnt last came out ahead of plain decoding."""
        self._longest = min(LONGEST_RUN, 2 * self._longest) if has_won else 1
        self.has_lost = not has_won
