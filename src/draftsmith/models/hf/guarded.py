"""A function that runs in a process of its own, with limits on its time and memory.

A chat template is a program of the model's makers. No limit inside an interpreter ends all that one
can do (a power of powers is one instruction, and a text that doubles fills the memory), so it runs
in a fork of this process, which shares what is loaded and can be killed. The fork answers further
calls, for making one costs more than a call, and ends when none comes for a while.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Literal, NamedTuple

__all__ = ["Ended", "Guarded"]

_IDLE_S = 10.0
"""Then the process ends: it would keep memory that is freed here."""
_LENGTH = struct.Struct("<Q")
_one_at_a_time = threading.Lock()
"""So that no fork finds another thread in the midst of a template, with its locks held."""


class Ended(NamedTuple):
    """How a guarded call ended."""

    how: Literal["returned", "raised", "out of time", "out of memory", "killed"]
    text: str
    """What it returned, or the exception in words."""


class Guarded:
    """A function of a text that is called in a fork of this process.

    Args:
        function: Computes a text of a text; what else it does stays in that process.
        limit_s: Seconds of a call, after which the process is killed.
        memory_bytes: What it may take beyond what this process has when it is forked.

    Example:
        >>> Guarded(lambda text: 3 * text, 5.0, 1 << 28)("a")
        Ended(how='returned', text='aaa')
    """

    def __init__(self, function: Callable[[str], str], limit_s: float, memory_bytes: int) -> None:
        self._function = function
        self._limit_s = limit_s
        self._memory_bytes = memory_bytes
        self._process = _Process()
        weakref.finalize(self, self._process.end)

    def __call__(self, text: str) -> Ended:
        """Call the function; a process that has ended meanwhile is replaced."""
        with _one_at_a_time:
            is_fresh = not self._process.is_ours
            ended = self._ask(text)
            if ended.how == "killed" and not is_fresh:
                # It was idle for too long, and went.
                self._process.end()
                ended = self._ask(text)
            if ended.how not in ("returned", "raised"):
                self._process.end()
            return ended

    def _ask(self, text: str) -> Ended:
        if not self._process.is_ours:
            self._process.end()
            self._process.start(lambda line: _serve(line, self._function, self._memory_bytes))
        line, end = self._process.line, time.monotonic() + self._limit_s
        assert line is not None
        try:
            line.settimeout(self._limit_s)
            _say(line, text)
            return Ended(*json.loads(_hear(line, end)))
        except TimeoutError:
            return Ended("out of time", "")
        except OSError:
            return Ended("killed", "")


class _Process:
    """A fork and the line to it."""

    def __init__(self) -> None:
        self.line: socket.socket | None = None
        self._child = self._owner = 0

    @property
    def is_ours(self) -> bool:
        """Whether there is one that this process made: a fork of this one has none yet."""
        return self.line is not None and self._owner == os.getpid()

    def start(self, serve: Callable[[socket.socket], None]) -> None:
        """Fork; the child serves and never returns."""
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Python warns of forks beside threads; the child takes no lock that one may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            ours.close()
            serve(theirs)
        theirs.close()
        self.line, self._child, self._owner = ours, child, os.getpid()

    def end(self) -> None:
        """End it, if there is one."""
        if self.is_ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
        if self.line is not None:
            self.line.close()
            self.line = None


def _serve(line: socket.socket, function: Callable[[str], str], memory_bytes: int) -> None:
    """In the child: answer calls until none comes; never return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        import resource  # here, because some systems lack it

        with open("/proc/self/statm", encoding="ascii") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + memory_bytes, own + memory_bytes))
        while select.select([line], [], [], _IDLE_S)[0]:
            _say(line, json.dumps(_outcome(function, _hear(line, float("inf")))))
    finally:
        os._exit(0)


def _outcome(function: Callable[[str], str], text: str) -> Ended:
    try:
        return Ended("returned", function(text))
    except MemoryError:
        return Ended("out of memory", "")
    except BaseException as error:  # told to the parent, which knows what to make of it
        return Ended("raised", " ".join(str(error).split()) or type(error).__name__)


def _say(line: socket.socket, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    line.sendall(_LENGTH.pack(len(data)) + data)


def _hear(line: socket.socket, end: float) -> str:
    """The next text.

    Raises:
        TimeoutError: If it is not there in time.
        ConnectionError: If the other side is gone.
    """

    def exactly(count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            line.settimeout(None if left == float("inf") else left)
            part = line.recv(min(count, 1 << 20))
            if not part:
                raise ConnectionError("the other side is gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
    return exactly(length).decode("utf-8", "surrogatepass")
