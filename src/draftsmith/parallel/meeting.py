"""How rank 0 and the others come to hear of each other, and the first words they say."""

import contextlib
import os
import pickle
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from draftsmith.errors import ParallelError
from draftsmith.parallel.collectives import START_S, Meeting
from draftsmith.parallel.failures import Failures
from draftsmith.parallel.watch import Peer
from draftsmith.parallel.wire import SocketWire

__all__ = ["Job", "Wires", "accept", "hear", "reach", "say"]

_KEY = "draftsmith/wires"
_LONGEST_FOLDER = 80
"""Of a socket's path there may be about a hundred characters."""


class Job(NamedTuple):
    """Who a rank is.

    Attributes:
        rank: 1 or more.
        size: Ranks.
        device: The type of its device.
        rank_0: The process of rank 0.
        meeting: Where all meet; None for the store that `torchrun` tells of.
    """

    rank: int
    size: int
    device: str
    rank_0: int
    meeting: Meeting | None


class Wires(NamedTuple):
    """A rank's way to rank 0.

    Attributes:
        orders: What is to be done.
        watch: Ends when rank 0 does.
    """

    orders: SocketWire
    watch: SocketWire


class _Hello(NamedTuple):
    rank: int
    is_watch: bool


def say(peer: Peer, word: object, failures: Failures) -> None:
    """Tell a rank something at its start.

    Raises:
        ParallelError: It has ended.
    """
    try:
        peer.orders.send(pickle.dumps(word))
    except OSError:
        _raise_gone(peer, failures)


def hear(peers: Sequence[Peer], failures: Failures, step: str, timeout_s: float) -> None:
    """Wait until every rank has done a step of its start.

    Raises:
        ParallelError: One has ended, or does not in time.
    """
    deadline = time.monotonic() + timeout_s
    for peer in peers:
        if not peer.orders.wait(max(0.0, deadline - time.monotonic())):
            name = f"rank {peer.rank} of {len(peers) + 1}"
            failures.fail(f"{name} did not {step} within {timeout_s:g} s")
            failures.check()
        try:
            peer.orders.receive()
        except EOFError:
            _raise_gone(peer, failures)


def accept(store: Store, size: int) -> tuple[list[Peer], str]:
    """Wait for the other ranks, in a folder that only this user can enter.

    Args:
        store: Where they look for its name.
        size: Ranks, this one included.

    Returns:
        They, in order, and a secret of theirs.

    Raises:
        ParallelError: One does not come in time.
    """
    secret = secrets.token_hex(16)
    with _private_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "rank0"))
        listener.listen(2 * size)
        store.set(_KEY, f"{secret}{folder}")
        found = _accepted(listener, size)
    peers = [
        Peer(rank, found[_Hello(rank, False)], found[_Hello(rank, True)]) for rank in range(1, size)
    ]
    return peers, secret


def reach(store: Store, rank: int, size: int) -> tuple[Wires, str]:
    """Find rank 0 by what it has left in a store.

    Args:
        store: That all know.
        rank: This process.
        size: Ranks.

    Returns:
        The way to it, and the secret of the group.

    Raises:
        ParallelError: It does not come in time, or is another user's.
    """
    try:
        text = store.get(_KEY).decode()
    except dist.DistError as error:
        raise ParallelError(
            f"rank 0 of {size} did not come within {START_S:g} s: every process must load the model"
        ) from error
    secret, folder = text[:32], Path(text[32:])
    _check_private(folder)
    return Wires(
        _connected(folder, _Hello(rank, False)), _connected(folder, _Hello(rank, True))
    ), secret


def _accepted(listener: socket.socket, size: int) -> dict[_Hello, SocketWire]:
    deadline = time.monotonic() + START_S
    found: dict[_Hello, SocketWire] = {}
    while len(found) < 2 * (size - 1):
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            there = {hello.rank for hello in found}
            missing = next(rank for rank in range(1, size) if rank not in there)
            raise ParallelError(
                f"rank {missing} of {size} did not come within {START_S:g} s: every process that "
                "torchrun starts must load the model"
            ) from None
        connection.settimeout(None)
        wire = SocketWire(connection)
        found[pickle.loads(wire.receive())] = wire
    return found


def _connected(folder: Path, hello: _Hello) -> SocketWire:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(folder / "rank0"))
    except OSError as error:
        connection.close()
        raise ParallelError(f"rank 0 is gone ({error.strerror}): start torchrun again") from error
    wire = SocketWire(connection)
    wire.send(pickle.dumps(hello))
    return wire


@contextlib.contextmanager
def _private_folder() -> Generator[Path]:
    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(
        prefix="draftsmith-", dir=base if len(base) < _LONGEST_FOLDER else "/tmp"
    )
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_private(folder: Path) -> None:
    """Only who can write to a folder can have put a socket there; orders are as good as code."""
    try:
        found = folder.stat()
    except OSError as error:
        raise ParallelError(f"rank 0 is gone ({error.strerror}): start torchrun again") from error
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ParallelError(
            f"{folder} is no folder of this user's alone: what runs as rank 0 there?"
        )


def _raise_gone(peer: Peer, failures: Failures) -> NoReturn:
    failures.settle(START_S)
    failures.fail(f"rank {peer.rank} is gone")
    failures.check()
    raise AssertionError
