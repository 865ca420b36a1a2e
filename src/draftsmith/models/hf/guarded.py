"""A function run in a process of its own, with limits on its time and memory.

A chat template is a program of the model's makers. No limit inside an interpreter ends all that one
can do (a power of powers is one instruction, and a text that doubles fills the memory), so it runs
in a fork of this process, which shares what is loaded and can be killed.
"""

import contextlib
import json
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

__all__ = ["Ended", "run_guarded"]

_LARGEST_READ = 1 << 20
_one_at_a_time = threading.Lock()
"""So that no fork finds another thread in the midst of a template, with its locks held."""


class Ended(NamedTuple):
    """How a guarded call ended."""

    how: Literal["returned", "raised", "out of time", "out of memory", "killed"]
    text: str
    """What it returned, or the exception in words."""


def run_guarded(function: Callable[[], str], limit_s: float, memory_bytes: int) -> Ended:
    """Call a function in a fork of this process.

    Args:
        function: Computes a text; whatever else it does is lost with the process.
        limit_s: Seconds after which it is killed.
        memory_bytes: What it may take beyond what this process has.

    Example:
        >>> run_guarded(lambda: "a" * 3, 5.0, 1 << 28)
        Ended(how='returned', text='aaa')
    """
    reader, writer = os.pipe()
    with _one_at_a_time, warnings.catch_warnings():
        # Python warns of forks beside threads; the child takes no lock that one of them may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _in_the_child(function, writer, memory_bytes)
    os.close(writer)
    try:
        said = _read(reader, time.monotonic() + limit_s)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if said is None:
        return Ended("out of time", "")
    return Ended(*json.loads(said)) if said else Ended("killed", "")


def _in_the_child(function: Callable[[], str], writer: int, memory_bytes: int) -> None:
    """Compute, tell, end; never return."""
    said = Ended("killed", "")
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        import resource  # here, because some systems lack it

        with open("/proc/self/statm", encoding="ascii") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + memory_bytes, own + memory_bytes))
        said = Ended("returned", function())
    except MemoryError:
        said = Ended("out of memory", "")
    except BaseException as error:  # told to the parent, which knows what to make of it
        kind, text = type(error).__name__, " ".join(str(error).split())
        said = Ended("raised", f"{text or kind}")
    finally:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(said).encode())
        finally:
            os._exit(0)


def _read(reader: int, end: float) -> bytes | None:
    """All that is written until the other end is closed; None where that is not in time."""
    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        part = os.read(reader, _LARGEST_READ)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None
