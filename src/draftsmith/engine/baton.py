"""Who holds it runs the engine: one thread at a time, in the order in which they asked."""

import threading
from collections import deque
from collections.abc import Callable

from draftsmith.errors import DraftError

__all__ = ["Baton"]


class Baton:
    """A lock that is fair, knows its holder, and may become needless while one waits for it.

    A plain lock would go to the same thread again and again: it asks anew within microseconds of
    letting go, and the others would hear nothing of their sequences until it is done with its own.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._holder: int | None = None
        self._queue: deque[object] = deque()

    def take(self, is_needless: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it is this thread's turn.

        Args:
            is_needless: Asked first, and whenever the baton was let go of.

        Returns:
            Whether this thread holds it now; False if that has become needless.

        Raises:
            DraftError: If it holds the baton already.
        """
        me, place = threading.get_ident(), object()
        with self._condition:
            if self._holder == me:
                raise DraftError("a drafter ran the engine that it drafts for: give it its own")
            self._queue.append(place)
            try:
                while not is_needless():
                    if self._holder is None and self._queue[0] is place:
                        self._holder = me
                        return True
                    self._condition.wait()
                return False
            finally:
                self._queue.remove(place)
                self._condition.notify_all()

    def take_if_free(self) -> bool:
        """Take it if nobody holds it, whoever waits; never waits."""
        with self._condition:
            if self._holder is not None:
                return False
            self._holder = threading.get_ident()
            return True

    def let_go(self) -> None:
        """Hand it on to whoever asked first."""
        with self._condition:
            self._holder = None
            self._condition.notify_all()
