"""Being another rank: it joins the group, does as rank 0 does, and ends when rank 0 does."""

import gc
import logging
import os
import pickle
import signal
import threading
import traceback
import warnings

import torch
from torch._C._distributed_c10d import PrefixStore, Store

from draftsmith.errors import DraftsmithError
from draftsmith.parallel import collectives
from draftsmith.parallel.group import Group, enter, leave
from draftsmith.parallel.meeting import Job, Wires, reach
from draftsmith.parallel.messages import is_of_exchange, told_error
from draftsmith.parallel.obeying import obey
from draftsmith.parallel.torchrun import Launch
from draftsmith.parallel.watch import Guard, Trouble

__all__ = ["follow", "work"]

_ENDING_S = 10.0


def follow(launch: Launch) -> None:
    """Be another rank in a process that `torchrun` has started, until rank 0 ends.

    Args:
        launch: This process.

    Raises:
        ParallelError: Rank 0 did not come in time.
    """
    store = collectives.launch_store(launch)
    wires, secret = reach(store, launch.rank, launch.size)
    work(wires, Guard(wires.watch), PrefixStore(secret, store))


def work(wires: Wires, guard: Guard, store: Store | None = None) -> None:
    """Join the group, and do as rank 0 does, until that says that it ends.

    Args:
        wires: To rank 0.
        guard: Of this process.
        store: Where the ranks meet; None is where rank 0 says.
    """
    _quiet()
    try:
        job: Job = pickle.loads(wires.orders.receive())
        guard.watch_process(job.rank_0)
        group = _joined(job, wires, store)
        with torch.inference_mode():
            obey(wires.orders)
        guard.stop(_ENDING_S)
        _end(group, wires)
    except EOFError:
        os._exit(1)
    except BaseException as error:
        _tell(wires, error)
        os._exit(1)


def _joined(job: Job, wires: Wires, store: Store | None) -> Group:
    is_cuda = job.device == "cuda"
    device = torch.device("cuda", job.rank) if is_cuda else torch.device(job.device)
    wires.orders.send(b"started")
    wires.orders.receive()
    if store is None:
        assert job.meeting is not None
        store = collectives.reach_store(job.meeting, job.size)
    exchange = collectives.join(store, job.rank, job.size, device)
    group = Group(job.rank, job.size, device, exchange)
    enter(group)
    wires.orders.send(b"joined")
    return group


def _end(group: Group, wires: Wires) -> None:
    """Let go of what holds collectives, say so, and leave torch's group."""
    collectives.finish(group.device)
    for call in reversed(group.at_end):
        call()
    gc.collect()
    wires.orders.send(b"ended")
    collectives.leave()
    leave()


def _tell(wires: Wires, error: BaseException) -> None:
    trace = "".join(traceback.format_exception(error))
    is_echo = is_of_exchange(error) and not isinstance(error, DraftsmithError)
    try:
        wires.watch.send(pickle.dumps(Trouble(told_error(error), is_echo, trace)))
    except OSError:
        return  # rank 0 is gone, too


def _quiet() -> None:
    """Rank 0 decides what Ctrl-C means, and warns and logs the same."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.getLogger("draftsmith").setLevel(logging.CRITICAL + 1)
