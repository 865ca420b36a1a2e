"""Processes that `torchrun` has started, as one of them sees it in its environment."""

import os
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from draftsmith.errors import InvalidRequestError
from draftsmith.parallel.group import current_group

__all__ = ["Launch", "launch", "launch_store"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Launch(NamedTuple):
    """Which of the processes that run one command line this one is.

    Attributes:
        rank: 0 to `size` - 1.
        size: Processes.
    """

    rank: int
    size: int


def launch() -> Launch | None:
    """What started this process beside others to run a model with them; None where nothing did.

    A program that has joined `torch.distributed` by itself runs a model in each of its processes.

    Raises:
        InvalidRequestError: They are of several hosts.
    """
    environment = os.environ
    if not all(environment.get(name) for name in _NEEDED):
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if size == 1 or _has_joined():
        return None
    here = int(environment.get("LOCAL_WORLD_SIZE", size))
    if here != size:
        raise InvalidRequestError(
            f"a model runs on the devices of one host, and torchrun has started {here} of "
            f"{size} processes on this one: give --nnodes 1"
        )
    return Launch(rank, size)


def launch_store(launch: Launch, timeout_s: float) -> Store:
    """The store that `torchrun` has told its processes of.

    Args:
        launch: This process.
        timeout_s: To reach it.
    """
    found = rendezvous("env://", launch.rank, launch.size, timeout=timedelta(seconds=timeout_s))
    store, _, _ = next(found)
    return store


def _has_joined() -> bool:
    return dist.is_initialized() and current_group() is None
