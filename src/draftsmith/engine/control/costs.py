"""What rounds cost on this machine, learnt from the rounds themselves."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CheckCost", "DraftCost", "Load"]

_MEMORY = 64
"""Observations that an estimate rests on; older ones fade."""
_STEP_MEMORY = 24
"""The same, of a draft's step, which has no level to follow."""
_CLIP = 0.25
"""The most that one observation may differ, in logs: a pause of the machine is not a cost."""
_FOLLOW = 0.1
"""Of a surprise, what the machine's speed is taken to have caused."""
_NOISE = 0.1
"""Of a plain round, before any was compared with others."""
_SLOPE = 0.2
"""Added time of a row before any was measured, as a share of a plain round. After that the last
two sizes say how it goes on."""
_TRUSTED = 3
"""Checks of a size before it is believed to be dearer than that: one slow check, as the first of a
size often is, must not be the reason that there is never a second."""
_FEW = 16
"""Tokens that a drafter catches up on in the time of a step."""
_EXACT = 8
"""Rows up to which every number is a size of its own; above, four to a doubling."""
_SHORT = 128
"""Held tokens up to which contexts are alike; above, one to a doubling."""
_JUMP = 64
"""Held tokens from one plain round to the last ones that tell what a token costs. A text that
grows moves less: there a slower machine looks the same."""
_UNTOLD = 8
"""Checks after which the table is made again, unless one is of a size that is hardly known: each
moves it little."""
_UNTAUGHT = 1e5
"""Squared jumps before what was learnt of a held token counts as much as taking it for free."""


class Load(NamedTuple):
    """What a round has before it."""

    size: int
    """Sequences of the batch."""
    held: float = 0.0
    """Their tokens so far, all together."""


class CheckCost:
    """Seconds of a round without its drafting, by the rows checked and the tokens held.

    A level that follows the machine's speed, times a shape that hardly moves. Plain rounds of a
    batch size lie on a line in held tokens; checks of more rows have their ratio to it, by rows
    and context. So a check of any size tells what a plain round would cost now.
    """

    def __init__(self) -> None:
        self._level = 0.0
        self._plain: dict[int, _Anchor] = {}
        """By batch size."""
        self._token = 0.0
        """Added time of a held token, over the level."""
        self._taught = 0.0
        """Squared jumps of the context that have told it."""
        self._strayed, self._num_strays = 2 * _NOISE, 2.0
        """Sum of what plain rounds differed from what was expected of them, and their number."""
        self._checks: dict[int, dict[int, _Size]] = {}
        """By rows and by context."""
        self._ratios: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._num_untold = 0
        """Checks that the ratios do not know of."""

    @property
    def is_known(self) -> bool:
        """Whether any plain round was observed."""
        return bool(self._plain)

    def num_plain(self, size: int) -> int:
        """Observed plain rounds of exactly this batch size."""
        anchor = self._plain.get(size)
        return 0 if anchor is None else anchor.count

    @property
    def noise(self) -> float:
        """How far a plain round is from what was expected of it, as a share of it."""
        return self._strayed / self._num_strays

    def is_far(self, load: Load) -> bool:
        """Whether the context is farther from that of the last plain rounds than any jump yet."""
        jump = load.held - self._near(load.size).held
        return abs(jump) > 2 * _SHORT and jump * jump > self._taught

    def observe(self, load: Load, rows: int, seconds: float) -> float:
        """Learn from a check of so many rows, which may be as few as there are sequences.

        Returns:
            Its time over the expected one, which is what a plain round in its place would have had
            as well; 1 where too little is known of such checks.
        """
        return self._observe_check(load, rows, max(seconds, 1e-9)) if self._plain else 1.0

    def observe_plain(
        self, load: Load, seconds: float, num_rounds: int = 1, noise: float | None = None
    ) -> None:
        """Learn from some plain rounds of one batch.

        Args:
            load: Amid them.
            seconds: Their mean time.
            num_rounds: How many.
            noise: How far each is from its neighbours, as a share, where there are several.
        """
        seconds = max(seconds, 1e-9)
        if not self._plain:
            self._level = seconds
        value = seconds / self._level
        anchor = self._plain.get(load.size)
        if anchor is None:
            self._plain[load.size] = _Anchor(load.held, value, num_rounds)
            self._ratios.clear()
            return
        jump = load.held - anchor.held
        if abs(jump) > _JUMP:
            self._learn_token(jump, value - anchor.value - self._token * jump, anchor.value)
        expected = max(1e-3 * anchor.value, anchor.value + self._token * jump)
        anchor.count += num_rounds
        surprise = _bounded(math.log(value / expected), anchor.count)
        kept = (1 - 1 / _MEMORY) ** num_rounds
        # A level that has moved since the last rest is no noise: the next rounds share it.
        stray = abs(surprise) if noise is None else noise
        self._strayed = kept * self._strayed + num_rounds * stray
        self._num_strays = kept * self._num_strays + num_rounds
        step = 1 / min(anchor.count, _MEMORY)
        level, shape = _shares(step, num_rounds)
        self._level *= math.exp(level * surprise)
        moved = 1 - (1 - step) ** num_rounds
        anchor.held += moved * jump
        anchor.value += moved * (expected - anchor.value)
        anchor.value *= math.exp(shape * surprise)

    def plain_s(self, load: Load) -> float:
        """Expected time of a plain round; infinite before any was observed."""
        return self._level * self._line(*load) if self._plain else math.inf

    def seconds(self, load: Load, rows: int) -> float:
        """Expected time of a check of `rows` rows; infinite before any was observed."""
        return self.plain_s(load) * float(self._shape(load, rows - load.size)[rows - load.size])

    def trusted_s(self, load: Load, rows: int) -> float:
        """As `seconds`, of the next number of rows that was seen often enough to go by.

        In any context; infinite where none was.
        """
        trusted = [
            one.rows
            for sizes in self._checks.values()
            for one in sizes.values()
            if one.count > _TRUSTED and one.rows > rows - 0.5
        ]
        return self.seconds(load, max(rows, round(min(trusted)))) if trusted else math.inf

    def table(self, load: Load, most: int) -> NDArray[np.float64]:
        """Expected times with 0 to `most` drafted rows: straight between what was measured."""
        return self.plain_s(load) * self._shape(load, most)[: most + 1]

    def _shape(self, load: Load, most: int) -> NDArray[np.float64]:
        """What checks take with 0 to `most` drafted rows or more, over a plain round."""
        if not self._plain:
            return np.ones(most + 1)
        place = load.size, _context(load.held)
        ratios = self._ratios.get(place)
        if ratios is None or len(ratios) <= most:
            ratios = self._ratios[place] = self._tabulate(load, max(most, 63))
        return ratios

    def _learn_token(self, jump: float, missed: float, usual: float) -> None:
        """Least squares over jumps; one that is no larger than those before may surprise less."""
        if jump * jump < self._taught:
            missed = max(-_CLIP * usual, min(_CLIP * usual, missed))
        self._taught += jump * jump
        self._token = max(0.0, self._token + jump * missed / (self._taught + _UNTAUGHT))
        self._ratios.clear()

    def _observe_check(self, load: Load, rows: int, seconds: float) -> float:
        value, at = seconds / self._level, self._line(*load)
        sizes = self._checks.setdefault(_place(rows), {})
        context = _context(load.held)
        size = sizes.get(context)
        self._num_untold += 1
        if size is None or size.count < _TRUSTED or self._num_untold >= _UNTOLD:
            self._num_untold = 0
            self._ratios.clear()
        if size is None:
            sizes[context] = _Size(float(rows), load.held, max(value, at), 1)
            return 1.0
        size.count += 1
        there = self._line(load.size, size.held)
        surprise = _bounded(math.log(value * there / (size.value * at)), size.count)
        step = 1 / min(size.count, _MEMORY)
        level, shape = _shares(step, 1)
        is_told = size.count > _TRUSTED
        if is_told:
            self._level *= math.exp(level * surprise)
        size.rows += step * (rows - size.rows)
        size.held += step * (load.held - size.held)
        size.value *= self._line(load.size, size.held) / there
        size.value *= math.exp(shape * surprise)
        least = self._line(load.size, size.held)
        if size.value < least:
            # No check takes less than its plain round: the machine has become faster since those.
            if is_told:
                self._level *= size.value / least
            size.value = least
        return math.exp(surprise) if is_told else 1.0

    def _line(self, size: int, held: float) -> float:
        """A plain round over the level."""
        anchor = self._plain.get(size)
        if anchor is None:
            # Between those that were timed.
            known = sorted(self._plain)
            return float(np.interp(size, known, [self._line(one, held) for one in known]))
        return max(1e-3 * anchor.value, anchor.value + self._token * (held - anchor.held))

    def _near(self, size: int) -> "_Anchor":
        return self._plain[min(self._plain, key=lambda one: abs(one - size))]

    def _tabulate(self, load: Load, most: int) -> NDArray[np.float64]:
        context = _context(load.held)
        sizes = [
            min(one.items(), key=lambda pair: (pair[1].count < _TRUSTED, abs(pair[0] - context)))[1]
            for one in self._checks.values()
        ]
        rows, values = [0.0], [1.0]
        for size in sorted(sizes, key=lambda one: one.rows):
            if size.rows <= load.size + rows[-1]:
                continue
            drafted = size.rows - load.size
            value = size.value / self._line(load.size, size.held)
            if size.count < _TRUSTED:
                value = min(value, values[-1] + _SLOPE * (drafted - rows[-1]))
            rows.append(drafted)
            values.append(value)
        slope = _SLOPE
        if len(rows) > 1:
            slope = max(0.0, values[-1] - values[-2]) / (rows[-1] - rows[-2])
        if rows[-1] < most:
            values.append(values[-1] + slope * (most - rows[-1]))
            rows.append(float(most))
        # More rows never cost less: a dip between two measurements is noise.
        return np.interp(np.arange(most + 1), rows, np.maximum.accumulate(values))


@dataclass(slots=True)
class _Anchor:
    """Where the last plain rounds of a batch size lie."""

    held: float
    """On average."""
    value: float
    """Their time over the level."""
    count: int


@dataclass(slots=True)
class _Size:
    """Checks of about so many rows, in about such a context."""

    rows: float
    """On average."""
    held: float
    """On average."""
    value: float
    """Their time over the level."""
    count: int


def _bounded(surprise: float, count: int) -> float:
    # The first time is often the slowest: it is soon forgotten.
    return max(-1.0 if count < 4 else -_CLIP, min(_CLIP, surprise))


def _shares(step: float, num_rounds: int) -> tuple[float, float]:
    """Of a surprise, what goes to the level and what to the shape."""
    shape = max(0.0, step - _FOLLOW / _MEMORY)
    each = _FOLLOW + shape
    both = 1 - max(0.0, 1 - each) ** num_rounds
    return both * _FOLLOW / each, both * shape / each


def _place(rows: int) -> int:
    return rows if rows <= _EXACT else _EXACT + round(4 * math.log2(rows / _EXACT))


def _context(held: float) -> int:
    return (int(held) // _SHORT).bit_length()


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
        self.first_s = 0.0
        """Of the very first draft."""
        self.dearest_s = 0.0
        """What the dearest catching up is expected to have taken."""

    def step_s(self, plain_s: float) -> float:
        """Expected time of one more drafted token, beside a plain round of `plain_s`."""
        return self._share * plain_s if self._step_s is None else self._step_s

    def catch_up_s(self, num_tokens: int, plain_s: float) -> float:
        """Expected time of reading `num_tokens` that the drafter has not seen yet."""
        each = self._catch_up_s
        # A prompt is read many rows at once: some tenth of a step a token.
        return num_tokens * (0.1 * self.step_s(plain_s) if each is None else each)

    def observe(self, steps: int, num_unseen: int, seconds: float, num_rounds: int = 1) -> None:
        """Learn from the drafting of a round, or of several that were alike.

        Args:
            steps: Tokens drafted in the longest draft.
            num_unseen: Tokens to catch up on beyond the few of every round.
            seconds: Time of it all.
            num_rounds: Of whose time this is the mean.
        """
        self.first_s = self.first_s or seconds
        for _ in range(num_rounds):
            self._learn(steps, num_unseen, seconds)
        self.dearest_s = max(self.dearest_s, self.catch_up_s(num_unseen, 0.0))

    def observe_reading(self, num_unseen: int, seconds: float) -> None:
        """Learn from catching up that was timed by itself.

        Args:
            num_unseen: Tokens that were read.
            seconds: What it took.
        """
        each = seconds / max(1, num_unseen)
        self._catch_up_s = each if self._catch_up_s is None else (each + self._catch_up_s) / 2
        self.first_s = self.first_s or seconds
        self.dearest_s = max(self.dearest_s, seconds)

    def _learn(self, steps: int, num_unseen: int, seconds: float) -> None:
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
            self._step_s *= math.exp(surprise / min(self._num_steps, _STEP_MEMORY))
