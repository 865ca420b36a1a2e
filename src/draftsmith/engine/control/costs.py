"""What rounds cost on this machine, learnt from the rounds themselves."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CheckCost", "DraftCost"]

_MEMORY = 24
"""Observations that an estimate rests on; older ones fade."""
_CLIP = 0.25
"""The most that one observation may differ, in logs: a pause of the machine is not a cost."""
_SLOPE = 0.08
"""Added time of a row before any was measured, as a share of the smallest check. After that the
last two sizes say how it goes on."""
_TRUSTED = 3
"""Checks of a size before it is believed to be dearer than that: one slow check, as the first of a
size often is, must not be the reason that there is never a second."""
_FEW = 16
"""Tokens that a drafter catches up on in the time of a step."""
_EXACT = 8
"""Rows up to which every number is a size of its own; above, four to a doubling."""


class CheckCost:
    """Seconds of a round without its drafting, by the rows that the target checks.

    A level that follows the machine's speed, times a shape over rows that hardly moves: so a
    check of any size tells what a plain round would cost now.
    """

    def __init__(self) -> None:
        self._level = 0.0
        self._sizes: dict[int, _Size] = {}
        self._counts: dict[int, int] = {}
        self._table: NDArray[np.float64] | None = None

    @property
    def is_known(self) -> bool:
        """Whether any check was observed."""
        return bool(self._sizes)

    def num_seen(self, rows: int) -> int:
        """Observed checks of exactly this many rows."""
        return self._counts.get(rows, 0)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one check."""
        self._counts[rows] = self._counts.get(rows, 0) + 1
        self._table = None
        if not self._sizes:
            self._level = seconds
        size = self._sizes.setdefault(_place(rows), _Size(float(rows), seconds / self._level))
        size.count += 1
        if size.count == 1:
            return
        surprise = math.log(seconds / (self._level * size.shape))
        # The first time is often the slowest: it is soon forgotten.
        surprise = max(-1.0 if size.count < 4 else -_CLIP, min(_CLIP, surprise))
        step = 1 / min(size.count, _MEMORY)
        self._level *= math.exp(0.1 * surprise)
        size.shape *= math.exp(max(0.0, step - 0.1 / _MEMORY) * surprise)
        size.rows += step * (rows - size.rows)

    def seconds(self, rows: int) -> float:
        """Expected time of a check of `rows` rows; infinite before any was observed."""
        return float(self.table(rows)[rows])

    def table(self, most: int) -> NDArray[np.float64]:
        """Expected times by rows, 0 to `most`: straight lines between what was measured."""
        if not self._sizes:
            return np.full(most + 1, math.inf)
        if self._table is None or len(self._table) <= most:
            self._table = self._tabulate(max(most, 63))
        return self._level * self._table[: most + 1]

    def _tabulate(self, most: int) -> NDArray[np.float64]:
        sizes = sorted(self._sizes.values(), key=lambda size: size.rows)
        rows, values = [sizes[0].rows], [sizes[0].shape]
        for size in sizes[1:]:
            usual = values[-1] + _SLOPE * values[0] * (size.rows - rows[-1])
            is_trusted = size.count >= _TRUSTED
            rows.append(size.rows)
            values.append(size.shape if is_trusted else min(size.shape, usual))
        slope = _SLOPE * values[0]
        if len(rows) > 1:
            slope = max(0.0, values[-1] - values[-2]) / (rows[-1] - rows[-2])
        if rows[-1] < most:
            values.append(values[-1] + slope * (most - rows[-1]))
            rows.append(most)
        # More rows never cost less: a dip between two measurements is noise.
        return np.interp(np.arange(most + 1), rows, np.maximum.accumulate(values))


@dataclass
class _Size:
    """Checks of about so many rows."""

    rows: float
    """On average."""
    shape: float
    """Their time over the level."""
    count: int = 0


def _place(rows: int) -> int:
    return rows if rows <= _EXACT else _EXACT + round(4 * math.log2(rows / _EXACT))


class DraftCost:
    """Seconds of drafting: a step a token, and catching up on committed tokens first.

    Args:
        share: The first guess of a step, as a share of a plain round.
    """

    def __init__(self, share: float = 0.2) -> None:
        self._share = share
        self._step_s: float | None = None
        self._num_steps = 0
        self._catch_up_s: float | None = None
        """A token."""
        self._first_reading: tuple[int, int, float] | None = None
        """Tokens, steps and seconds of a reading before a step was known."""
        self.round_s = math.inf
        """Of the last rounds, without catching up; infinite before the first."""

    def step_s(self, plain_s: float) -> float:
        """Expected time of one more drafted token, beside a plain round of `plain_s`."""
        return self._share * plain_s if self._step_s is None else self._step_s

    def catch_up_s(self, num_tokens: int, plain_s: float) -> float:
        """Expected time of reading `num_tokens` that the drafter has not seen yet."""
        each = self._catch_up_s
        # A prompt is read many rows at once: some tenth of a step a token.
        return num_tokens * (0.1 * self.step_s(plain_s) if each is None else each)

    def observe(self, steps: int, num_unseen: int, seconds: float) -> None:
        """Learn from one round's drafting.

        Args:
            steps: Tokens drafted in the longest draft.
            num_unseen: Tokens to catch up on beyond the few of every round.
            seconds: Time of it all.
        """
        if num_unseen > _FEW:
            each = max(0.0, seconds - steps * (self._step_s or 0.0)) / num_unseen
            self._catch_up_s = each if self._catch_up_s is None else (each + self._catch_up_s) / 2
            if self._step_s is None:
                self._first_reading = (num_unseen, steps, seconds)
            return
        known = math.isfinite(self.round_s)
        self.round_s = 0.8 * self.round_s + 0.2 * seconds if known else seconds
        if self._step_s is None:
            self._step_s, self._num_steps = seconds / max(1, steps), 1
            if self._first_reading is not None:
                tokens, steps, seconds = self._first_reading
                self._catch_up_s = max(0.0, seconds - steps * self._step_s) / tokens
        else:
            self._num_steps += 1
            each = seconds / max(1, steps)
            surprise = math.log(max(each, 1e-9) / max(self._step_s, 1e-9))
            surprise = max(-1.0 if self._num_steps < 4 else -_CLIP, min(_CLIP, surprise))
            self._step_s *= math.exp(surprise / min(self._num_steps, _MEMORY))
