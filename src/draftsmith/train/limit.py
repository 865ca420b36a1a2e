"""How long a training may take."""

import time
from collections.abc import Callable

from draftsmith.core.values import check_number, require

__all__ = ["PROMPT_SHARE", "TEXT_SHARE", "TimeLimit"]

TEXT_SHARE = 0.5
"""Of the time that the writing of prompts and texts may take; what is not there then, is not."""
PROMPT_SHARE = 0.12
"""Of the time that the inventing of prompts may take."""


class TimeLimit:
    """A share of some minutes, which run from now on.

    Args:
        minutes: Above 0; None is without end.
        clock: Seconds.

    Raises:
        InvalidRequestError: It is out of range.

    Example:
        >>> limit = TimeLimit(2.0, iter([0.0, 60.0, 121.0]).__next__)
        >>> limit.spent, limit.spent
        (0.5, 1.0)
    """

    def __init__(
        self, minutes: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if minutes is not None:
            rule = "above 0 and at most 100000"
            require(0 < check_number("max_minutes", minutes) <= 1e5, "max_minutes", rule, minutes)
        self.minutes = minutes
        self._clock, self._start = clock, clock()

    @property
    def spent(self) -> float:
        """The share that is over, 0 to 1; always 0 without an end."""
        if self.minutes is None:
            return 0.0
        return min(1.0, (self._clock() - self._start) / (60 * self.minutes))

    @property
    def are_prompts_over(self) -> bool:
        """Whether the prompts that were invented are to be made do with."""
        return self.spent >= PROMPT_SHARE

    @property
    def is_text_over(self) -> bool:
        """Whether what is written is to be made do with."""
        return self.spent >= TEXT_SHARE
