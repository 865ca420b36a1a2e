"""torch's own group of processes: joining it, and leaving it without hanging."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import distributed_c10d
from torch.distributed.rendezvous import rendezvous

from draftsmith.errors import ParallelError
from draftsmith.parallel.exchange import Exchange, GatheredExchange
from draftsmith.parallel.torchrun import Launch, note_joined

__all__ = [
    "START_S",
    "Meeting",
    "finish",
    "host_store",
    "join",
    "launch_store",
    "leave",
    "reach_store",
]

START_S = 30.0
"""What each step of a start may take; importing torch is not one of them."""
_PATIENCE = timedelta(minutes=30)
"""Of a collective: ranks that are gone are noticed otherwise."""
_LEAVING_S = 5.0
_log = logging.getLogger(__name__)
_HERE = "127.0.0.1"


class Meeting(NamedTuple):
    """Where ranks that rank 0 started meet: a store of this host.

    Attributes:
        port: Of the store.
        secret: What every key begins with.
    """

    port: int
    secret: str


def host_store(size: int) -> tuple[Meeting, Store]:
    """Open a store that only this host can reach."""
    # torch would listen on every address.
    listener = socket.socket()
    listener.bind((_HERE, 0))
    listener.listen(size)
    meeting = Meeting(listener.getsockname()[1], secrets.token_hex(16))
    store = TCPStore(
        _HERE,
        meeting.port,
        size,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=START_S),
        master_listen_fd=listener.detach(),
    )
    return meeting, PrefixStore(meeting.secret, store)


def reach_store(meeting: Meeting, size: int) -> Store:
    """The store that rank 0 has opened."""
    timeout = timedelta(seconds=START_S)
    store = TCPStore(_HERE, meeting.port, size, is_master=False, timeout=timeout)
    return PrefixStore(meeting.secret, store)


def launch_store(launch: Launch) -> Store:
    """The store that `torchrun` has told its processes of."""
    found = rendezvous("env://", launch.rank, launch.size, timeout=timedelta(seconds=START_S))
    store, _, _ = next(found)
    return store


def join(store: Store, rank: int, size: int, device: torch.device) -> Exchange:
    """Join torch's process group: gloo on CPUs, NCCL beside it on GPUs.

    Args:
        store: Where the ranks meet.
        rank: This process.
        size: Ranks.
        device: This rank's.

    Returns:
        How this rank exchanges with the others.

    Raises:
        ParallelError: Another rank did not come in time, or the devices do not reach each other.
    """
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    note_joined(True)
    try:
        with _on_loopback():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=START_S),
                device_id=device if is_cuda else None,
            )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ParallelError(f"the {size} ranks could not join ({reason})") from error
    # One rank may compute for long before the others need it.
    distributed_c10d._set_pg_timeout(_PATIENCE)  # pyright: ignore[reportPrivateUsage]  # there is no other way
    if not is_cuda:
        return GatheredExchange(device)
    from draftsmith.parallel.symmetric import SymmetricExchange

    try:
        return SymmetricExchange(device)
    except ParallelError as error:
        _log.warning("%s: ranks exchange through NCCL, which takes longer", error)
        return GatheredExchange(device)


def finish(device: torch.device) -> None:
    """Wait for the passes that still run, for seconds: another rank may wait in them, too.

    The last of them may be one that nobody reads.
    """
    if device.type != "cuda":
        return
    finishing = threading.Thread(target=torch.cuda.synchronize, args=(device,), daemon=True)
    finishing.start()
    finishing.join(_LEAVING_S)


def leave() -> bool:
    """Leave torch's process group; whether that was done in time, and not left undone.

    Where a rank is gone, it may wait for ever in a library.
    """
    if not dist.is_initialized():
        return True
    leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(_LEAVING_S)
    note_joined(False)
    return not leaving.is_alive()


@contextmanager
def _on_loopback() -> Generator[None]:
    """Where gloo listens, unless the environment says."""
    name = "GLOO_SOCKET_IFNAME"
    is_open = name not in os.environ
    if is_open:
        os.environ[name] = "lo"
    try:
        yield
    finally:
        if is_open:
            del os.environ[name]
