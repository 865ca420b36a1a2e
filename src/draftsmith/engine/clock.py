"""A clock that stands still while Python collects garbage in the thread that reads it.

A collection of the oldest objects takes a tenth of a second where torch is loaded, twenty rounds of
a small model, and comes with plain decoding as well. Whoever runs when it is due is not to blame:
a draft that was would not be tried again for hundreds of rounds.
"""

import gc
import threading
import time
from typing import Literal

__all__ = ["perf_counter"]


class _Collected(threading.local):
    """What collections have taken in a thread."""

    seconds = 0.0
    begun = 0.0

    def note(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        """As Python calls it, in the thread that collects."""
        del info
        if phase == "start":
            self.begun = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self.begun


_collected = _Collected()
gc.callbacks.append(_collected.note)


def perf_counter() -> float:
    """`time.perf_counter`, less what this thread has spent collecting garbage.

    Returns:
        Seconds, of which differences within a thread mean something.
    """
    return time.perf_counter() - _collected.seconds
