"""What has gone wrong in a group of ranks: once something has, no rank is told anything more."""

import logging
import threading
from collections.abc import Callable

from draftsmith.errors import ParallelError

__all__ = ["Failures"]

_log = logging.getLogger(__name__)


class Failures:
    """The first failure of a group, and whom it is told to.

    Args:
        remedy: What helps against any.
        on_failure: Called once, by any thread, when a rank has failed; more may be added.
    """

    def __init__(
        self,
        remedy: str = "load the model again",
        on_failure: list[Callable[[], None]] | None = None,
    ) -> None:
        self._remedy = remedy
        self.on_failure = [] if on_failure is None else on_failure
        self.reason: str | None = None
        """A line, with the remedy; None while all is well."""
        self._lock = threading.Lock()
        self._told = threading.Event()

    def fail(self, reason: str) -> None:
        """Note a failure; only the first counts.

        Args:
            reason: Which rank, and what became of it.
        """
        with self._lock:
            if self.reason is not None:
                return
            self.reason = f"{reason}: {self._remedy}"
        for call in self.on_failure:
            try:
                call()
            except Exception:
                # The others must be called, and the reason told, all the same.
                _log.exception("a callback of a failed group failed")
        self._told.set()

    def check(self) -> None:
        """Make sure that nothing has failed.

        Raises:
            ParallelError: A rank has.
        """
        if self.reason is not None:
            raise ParallelError(self.reason)

    def settle(self, timeout_s: float) -> None:
        """Wait for a failure that is about to be known."""
        self._told.wait(timeout_s)
