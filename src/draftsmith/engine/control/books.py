"""The ledger as it grows: rounds are entered, those of a plain rest all at once."""

import math
from itertools import pairwise
from typing import NamedTuple

from draftsmith.engine.control.contract import Ledger

__all__ = ["Books", "Rest"]

_PAUSE = 0.5
"""The most that one round may differ from the next, in logs: a pause of the machine is no noise."""


class Rest(NamedTuple):
    """Plain rounds in a row."""

    num_rounds: int = 0
    num_timed: int = 0
    """Of them, those that read no prompt of their own; the means are theirs."""
    round_s: float = 0.0
    """What plain decoding takes, without reading prompts."""
    own_s: float = 0.0
    """What the controller takes."""
    noise: float | None = None
    """How far a round is from those before and behind it, as a share; None where there is one."""


class Books:
    """What was spent, and what plain decoding would have taken.

    Plain rounds wait in `rested` as they were reported: one costs no more than to put it there.
    """

    def __init__(self) -> None:
        self.entered = Ledger()
        """All rounds but those of the rest in hand."""
        self.rested: list[tuple[bool, float, float, float, float]] = []
        """Of the plain rounds of the rest in hand, what a report ends with, from `is_first` on:
        not its sequences, which may be gone before the rest ends."""
        self.owed = 0.0
        """Plain rounds saved before any was timed: nobody knew yet what one is worth."""

    @property
    def ledger(self) -> Ledger:
        """Of all rounds."""
        return self.entered + self._rested

    @property
    def num_rounds(self) -> int:
        """Entered rounds."""
        return self.entered.num_rounds

    def enter(self, line: Ledger) -> None:
        """Add one round."""
        self.entered += line

    def end_rest(self) -> Rest:
        """Enter the rest in hand, which may be of no rounds."""
        if not self.rested:
            return Rest()
        timed = [one for one in self.rested if not one[0]]
        self.entered += self._rested
        num_rounds, num_timed = len(self.rested), len(timed)
        self.rested.clear()
        if not timed:
            return Rest(num_rounds)
        self.owed = 0.0
        times = [total_s - read_s - own_s for _, _, total_s, own_s, read_s in timed]
        own_s = sum(own_s for *_, own_s, _ in timed)
        plain_s = sum(times)
        noise = _noise(times)
        return Rest(num_rounds, num_timed, plain_s / num_timed, own_s / num_timed, noise)

    @property
    def _rested(self) -> Ledger:
        """The rest in hand."""
        spent_s = plain_s = draft_s = all_own_s = 0.0
        owed = self.owed
        for is_first, drafting_s, total_s, own_s, read_s in self.rested:
            spent_s += total_s
            plain_s += total_s - own_s
            draft_s += drafting_s
            all_own_s += own_s
            if owed and not is_first:
                plain_s += owed * (total_s - own_s - read_s)
                owed = 0.0
        number = len(self.rested)
        return Ledger(spent_s, plain_s, draft_s, all_own_s, number, number)


def _noise(times: list[float]) -> float | None:
    """The mean distance from a level that moves slowly: neighbours share it."""
    if len(times) < 2:
        return None
    pairs = pairwise(max(one, 1e-9) for one in times)
    steps = [min(abs(math.log(later / sooner)), _PAUSE) for sooner, later in pairs]
    # Both ends of a step stray.
    return sum(steps) / len(steps) / math.sqrt(2)
