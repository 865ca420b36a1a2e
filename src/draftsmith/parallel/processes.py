"""The other ranks' processes, from start to every kind of end, as rank 0 sees them."""

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from draftsmith.errors import InvalidRequestError, ParallelError
from draftsmith.parallel import collectives
from draftsmith.parallel.collectives import START_S
from draftsmith.parallel.devices import check_devices
from draftsmith.parallel.failures import Failures
from draftsmith.parallel.following import follow
from draftsmith.parallel.group import Group, current_group, enter, leave
from draftsmith.parallel.meeting import Job, accept, hear, say
from draftsmith.parallel.orders import Orders
from draftsmith.parallel.torchrun import Launch, launch
from draftsmith.parallel.watch import Peer, Watch
from draftsmith.parallel.wire import SocketWire

__all__ = ["end_group", "start_group"]

_log = logging.getLogger(__name__)
_IMPORT_S = 120.0
"""What importing torch may take at most, from a cold disk."""
_ENDING_S = 5.0
_SETTLING_S = 1.0
_TEARDOWN_S = 10


@dataclass
class _Running:
    group: Group
    orders: Orders
    peers: Sequence[Peer]
    watch: Watch
    store: Store
    has_left: bool = False
    """Whether torch's process group is gone."""


_running: list[_Running] = []
_lock = threading.RLock()


def start_group(size: int, device: torch.device) -> Group:
    """Start the processes of a group, or give back the one that runs.

    Where `torchrun` has started this process, the others are there already, and each of them ends
    in this call: it does as rank 0 does until that ends, and raises `SystemExit`.

    Args:
        size: Ranks, 2 or more; on GPUs, rank r has `cuda:r`.
        device: `cpu` or `cuda`.

    Returns:
        The group as rank 0 sees it; it ends with this process, or by `end_group`.

    Raises:
        InvalidRequestError: There are fewer GPUs, or a group of another kind runs.
        ParallelError: A rank did not come within 30 s (beside what importing torch takes).
    """
    with _lock:
        found = current_group()
        if found is not None and not _has_failed(found):
            _check_same(found, size, device)
            return found
        launched = launch()
        _check(size, device, launched)
        end_group()
        if launched is None:
            return _start(size, device)
        if launched.rank:
            follow(launched)
            raise SystemExit(0)
        return _meet(launched, device)


def end_group() -> None:
    """End the other ranks; models that ran on them are to be loaded again.

    It never hangs: what does not end by itself within seconds is ended.
    """
    with _lock:
        if _running:
            _end(_running.pop())


def _start(size: int, device: torch.device) -> Group:
    """Start the other ranks' processes."""
    meeting, store = collectives.host_store(size)
    peers: list[Peer] = []
    try:
        peers.extend(_spawned(rank) for rank in range(1, size))
    except BaseException:
        _abandon(peers)
        raise
    jobs = [Job(one.rank, size, device.type, os.getpid(), meeting) for one in peers]
    return _bring_up(peers, jobs, store, device)


def _meet(launched: Launch, device: torch.device) -> Group:
    """Wait for the processes that were started beside this one."""
    store = collectives.launch_store(launched)
    peers, secret = accept(store, launched.size)
    jobs = [Job(one.rank, launched.size, device.type, os.getpid(), None) for one in peers]
    return _bring_up(peers, jobs, PrefixStore(secret, store), device, "start torchrun again")


def _spawned(rank: int) -> Peer:
    """A process that has one end of two wires, and nothing else of this one."""
    orders, their_orders = socket.socketpair()
    watch, their_watch = socket.socketpair()
    with their_orders, their_watch:
        numbers = their_orders.fileno(), their_watch.fileno()
        process = subprocess.Popen(
            # Its imports are this process's: no folder that it happens to be in comes first.
            [
                sys.executable,
                "-P",
                "-W",
                "ignore",
                "-m",
                "draftsmith.parallel.worker",
                *map(str, numbers),
            ],
            env={**os.environ, "PYTHONPATH": _import_path()},
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=2,  # stdout is the product's
            # Ctrl-C at the terminal is for rank 0, also while this one has not yet said so.
            start_new_session=True,
        )
    return Peer(rank, SocketWire(orders), SocketWire(watch), process)


def _bring_up(
    peers: Sequence[Peer],
    jobs: Sequence[Job],
    store: Store,
    device: torch.device,
    remedy: str = "load the model again",
) -> Group:
    """Tell every rank who it is, and join them."""
    size = len(peers) + 1
    own = torch.device("cuda", 0) if device.type == "cuda" else device
    on_failure: list[Callable[[], None]] = []
    failures = Failures(remedy, on_failure)
    watch = Watch(peers, failures)
    watch.start()
    try:
        for peer, job in zip(peers, jobs, strict=True):
            say(peer, job, failures)
        hear(peers, failures, "start", START_S + _IMPORT_S)
        for peer in peers:
            say(peer, "join", failures)
        try:
            exchange = collectives.join(store, 0, size, own)
        except ParallelError:
            failures.settle(_SETTLING_S)
            failures.check()
            raise
        hear(peers, failures, "join", START_S)
    except BaseException:
        watch.stop()
        _abandon(peers)
        collectives.leave()
        raise
    orders = Orders([one.orders for one in peers], failures)
    on_failure.append(exchange.call_off)
    # They may wait for rank 0 amid a pass, and would wait on.
    on_failure.extend(one.end for one in peers)
    group = Group(0, size, own, exchange, orders, on_failure)
    enter(group)
    _running.append(_Running(group, orders, peers, watch, store))
    return group


def _end(running: _Running) -> None:
    """End the other ranks, if they are there, and leave torch's group after its graphs."""
    orders, watch = running.orders, running.watch
    # A thread that is amid a pass gets the time to finish it.
    is_whole = not _has_failed(running.group) and orders.lock.acquire(timeout=_ENDING_S)
    if is_whole:
        # While ranks are watched: one that is gone now would be waited for.
        collectives.finish(running.group.device)
    else:
        running.group.exchange.call_off()
    watch.stop()
    for call in (*reversed(running.group.at_end), orders.let_go):
        _try(call)
    if is_whole:
        _try(lambda: _end_orderly(running))
        orders.lock.release()
    running.group.on_failure.clear()
    orders.failures.fail("the processes that ran this model have ended")
    running.has_left = collectives.leave()
    _abandon(running.peers, _ENDING_S if is_whole else 0.0)
    watch.join()
    for peer in running.peers:
        peer.close()
    leave()


def _end_orderly(running: _Running) -> None:
    running.orders.end()
    deadline = time.monotonic() + _ENDING_S
    for peer in running.peers:
        # It has let go of its graphs, too.
        if peer.orders.wait(max(0.0, deadline - time.monotonic())):
            peer.orders.receive()


def _abandon(peers: Sequence[Peer], patience_s: float = 0.0) -> None:
    for peer in peers:
        peer.end()
    for peer in peers:
        peer.reap(patience_s)


def _try(act: Callable[[], None]) -> None:
    """Do what may fail, on the way to an end that must be reached."""
    try:
        act()
    except Exception:
        _log.debug("while a group ended", exc_info=True)


def _has_failed(group: Group) -> bool:
    return group.orders is not None and group.orders.failures.reason is not None


def _check_same(found: Group, size: int, device: torch.device) -> None:
    asked = (size, device.type)
    if asked != (found.size, found.device.type):
        raise InvalidRequestError(
            f"parallel={size} on {device.type}: this process runs its models on {found.size} ranks "
            f"on {found.device.type}; give the same, or start another process"
        )


def _check(size: int, device: torch.device, launched: Launch | None) -> None:
    """Refuse what cannot start, before anything does."""
    if launched is not None and launched.size != size:
        raise InvalidRequestError(
            f"parallel={size}: torchrun has started {launched.size} processes; leave it out"
        )
    if launched is not None and _running:
        raise ParallelError("the processes that torchrun started are gone: start it again")
    if dist.is_initialized() and not _running:
        raise InvalidRequestError(
            f"parallel={size}: this process has joined torch.distributed already; leave it out, "
            "and each of its processes has a model of its own"
        )
    check_devices(size, device)


def _import_path() -> str:
    return os.pathsep.join(one or os.getcwd() for one in sys.path)


def _end_at_exit() -> None:
    if threading.current_thread() is threading.main_thread():
        # Nobody could say what Ctrl-C ends, and it takes seconds at most.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = list(_running)
    end_group()
    if not all(one.has_left for one in running):
        # A library that waits for a rank that is gone would do so once more as it is torn down.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_TEARDOWN_S)


def _forget_in_child() -> None:
    """A forked child has copies of this process's wires, and is not rank 0."""
    for running in _running:
        running.watch.stop()
        for peer in running.peers:
            peer.close()
        running.orders.disown("a forked child does not run its parent's models")
    _running.clear()


atexit.register(_end_at_exit)
os.register_at_fork(after_in_child=_forget_in_child)
