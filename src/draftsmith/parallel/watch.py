"""Whether the other ranks are there, watched by a thread of its own on every rank.

What a rank's main thread waits for (an exchange, a kernel) may never come once another rank is
gone; these threads wait for nothing else, and know.
"""

import contextlib
import logging
import os
import pickle
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from draftsmith.parallel.failures import Failures
from draftsmith.parallel.wire import SocketWire

__all__ = ["Guard", "Peer", "Trouble", "Watch"]

_log = logging.getLogger(__name__)
_SETTLING_S = 0.3
"""One rank's end makes others fail: so long are all heard of before one is named."""
_ENDING_S = 1.0
_LOOKING_S = 0.5


class Trouble(NamedTuple):
    """What a rank says before it ends.

    Attributes:
        text: A line.
        is_echo: Whether another rank's end may be the cause.
        trace: Where it happened.
    """

    text: str
    is_echo: bool
    trace: str


@dataclass(frozen=True)
class Peer:
    """Another rank, as rank 0 sees it.

    Attributes:
        rank: Which.
        orders: To what it does as it is told.
        watch: To its guard.
        process: It, where rank 0 has started it.
    """

    rank: int
    orders: SocketWire
    watch: SocketWire
    process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Let it find the end of both wires."""
        self.orders.end()
        self.watch.end()

    def close(self) -> None:
        """Give both wires back."""
        self.orders.close()
        self.watch.close()

    def reap(self, timeout_s: float) -> None:
        """Wait for its end, and bring it about if it does not come."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Watch:
    """Rank 0's: when a rank ends, finds out which and why, and ends the others.

    Args:
        peers: The other ranks.
        failures: Who is to know.
    """

    def __init__(self, peers: Sequence[Peer], failures: Failures) -> None:
        self._peers, self._failures = peers, failures
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="draftsmith-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Who ends from now on is meant to."""
        self._is_over = True

    def join(self) -> None:
        """Wait for the thread, once every rank is ended."""
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer.watch, selectors.EVENT_READ)
            selector.select()
        if not self._is_over:
            time.sleep(_SETTLING_S)
        if self._is_over:
            return
        heard = {peer: _last_word(peer) for peer in self._peers if peer.watch.wait(0.0)}
        peer = min(heard, key=lambda one: (_is_echo(heard[one]), one.rank))
        self._failures.fail(self._reason(peer, heard[peer]))
        for one in self._peers:
            one.end()
        deadline = time.monotonic() + _ENDING_S
        for one in self._peers:
            one.reap(max(0.0, deadline - time.monotonic()))

    def _reason(self, peer: Peer, trouble: Trouble | None) -> str:
        name = f"rank {peer.rank} of {len(self._peers) + 1}"
        if trouble is not None:
            _log.debug("%s: %s", name, trouble.trace)
            return f"{name} failed ({trouble.text})"
        how = _status(peer.process)
        return f"{name} ended{f' ({how})' if how else ''}"


class Guard:
    """Another rank's: when rank 0 is gone, ends this process, whatever it waits for.

    Args:
        wire: From rank 0, which never says anything.
    """

    def __init__(self, wire: SocketWire) -> None:
        self._wire = wire
        self._rank_0: int | None = None
        self._is_over = threading.Event()
        thread = threading.Thread(target=self._run, name="draftsmith-guard", daemon=True)
        thread.start()

    def watch_process(self, rank_0: int) -> None:
        """Look after rank 0's process, too: a child of its may hold its end of the wire open."""
        self._rank_0 = rank_0

    def stop(self, timeout_s: float) -> None:
        """This process ends by itself now; it is ended only if it takes longer."""
        self._is_over.set()
        last = threading.Timer(timeout_s, os._exit, (0,))
        last.daemon = True
        last.start()

    def _run(self) -> None:
        while not self._wire.wait(_LOOKING_S):
            if self._rank_0 is not None and not _is_there(self._rank_0):
                break
        if not self._is_over.is_set():
            os._exit(1)


def _last_word(peer: Peer) -> Trouble | None:
    try:
        return pickle.loads(peer.watch.receive())
    except EOFError:
        return None


def _is_echo(trouble: Trouble | None) -> bool:
    return trouble is not None and trouble.is_echo


def _status(process: subprocess.Popen[bytes] | None) -> str:
    """How a process has ended, where that is known."""
    if process is None:
        return ""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDING_S)
    code = process.returncode
    if code is None:
        return "it closed its wires"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
