"""Processes that `torchrun` has started, as one of them sees it in its environment."""

import os
from typing import NamedTuple

import torch.distributed as dist

from draftsmith.errors import InvalidRequestError

__all__ = ["Launch", "launch", "note_joined"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_joined: list[bool] = []


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
    if size == 1 or _is_others():
        return None
    here = int(environment.get("LOCAL_WORLD_SIZE", size))
    if here != size:
        raise InvalidRequestError(
            f"a model runs on the devices of one host, and torchrun has started {here} of "
            f"{size} processes on this one: give --nnodes 1"
        )
    return Launch(rank, size)


def note_joined(is_joined: bool) -> None:
    """Say that it is this package that joins `torch.distributed` in this process, or leaves it."""
    _joined.clear()
    if is_joined:
        _joined.append(True)


def _is_others() -> bool:
    """Whether the program has joined `torch.distributed` by itself."""
    return dist.is_available() and dist.is_initialized() and not _joined
