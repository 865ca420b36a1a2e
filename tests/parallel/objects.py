"""Shared objects that tests make on every rank; a thread of the name "rank 1" is one, too."""

import os
import signal
import threading
import weakref
from typing import Any

import torch
import torch.distributed as dist

from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.gpu import plain
from draftsmith.kernels.gpu.verdicts import Bests
from draftsmith.parallel import agreement
from draftsmith.parallel.group import current_group
from draftsmith.parallel.orders import Shared, together

alive: "weakref.WeakSet[Tally]" = weakref.WeakSet()


def own_rank() -> int:
    """Of this process, or of this thread where ranks are threads."""
    group = current_group()
    name = threading.current_thread().name
    return int(name[5:]) if name.startswith("rank ") else 0 if group is None else group.rank


class Tally(Shared):
    """Remembers what it was told."""

    def __init__(self, first: int = 0) -> None:
        self.told_so_far = [first]
        self.rank = own_rank()
        self.has_let_go = False
        alive.add(self)

    def let_go(self) -> None:
        """The group ends."""
        self.has_let_go = dist.is_initialized()

    @together
    def add(self, number: int) -> int:
        """Remember a number."""
        self.told_so_far.append(number)
        return number

    @together
    def add_twice(self, number: int) -> None:
        """Calls what is told itself."""
        self.add(number)
        self.add(number)

    @together
    def add_with_ctrl_c(self, number: int) -> None:
        """Rank 0 is interrupted before it does its part."""
        if self.rank == 0:
            os.kill(os.getpid(), signal.SIGINT)
        self.told_so_far.append(number)

    @together
    def refuse(self, ranks: tuple[int, ...]) -> None:
        """Refused on some ranks."""
        if self.rank in ranks:
            raise InvalidRequestError("no")

    @together
    def fail(self, ranks: tuple[int, ...]) -> None:
        """Goes wrong on some ranks."""
        if self.rank in ranks:
            raise ZeroDivisionError("wrong")

    @together
    def exchange(self) -> float:
        """The sum of the ranks, through torch."""
        sum = torch.tensor(float(self.rank + 1))
        dist.all_reduce(sum)
        return float(sum)

    @together
    def exchange_alone(self, rank: int) -> None:
        """One rank waits for the others, which never come."""
        if self.rank == rank:
            self.exchange()

    def so_far(self) -> list[int]:
        """What this rank remembers."""
        return self.told_so_far

    def interrupted_so_far(self) -> list[int]:
        """The same; rank 0 is interrupted meanwhile."""
        if self.rank == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self.told_so_far

    def refused_so_far(self, ranks: tuple[int, ...]) -> list[int]:
        """What this rank remembers, if it does not refuse."""
        if self.rank in ranks:
            raise InvalidRequestError("no")
        return self.told_so_far

    def process(self) -> int:
        """Where this rank runs."""
        return os.getpid()

    def num_alive(self) -> int:
        """Tallies of this rank."""
        return sum(one.rank == self.rank for one in alive)


class Pair(Shared):
    """Knows another shared object."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def ranks(self) -> tuple[int, int]:
        """Of this, and of what it knows."""
        return own_rank(), self.tally.rank


def refused_tally(ranks: tuple[int, ...], number: int) -> Tally:
    """A tally that some ranks cannot make."""
    if own_rank() in ranks:
        raise InvalidRequestError(f"rank {own_rank()} has no room\nfor it")
    return Tally(number)


def interrupted_tally() -> Tally:
    """Rank 0 is interrupted while it makes it."""
    if own_rank() == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return Tally()


class Planted(Shared):
    """Stands for what a test did to a rank."""


def off_by_one() -> Planted:
    """Rank 1 settles on tokens that are one too high."""
    if own_rank() == 1:
        settle = plain.settle

        def wrong(bests: Bests, *rest: Any) -> None:
            settle(bests._replace(ids=bests.ids + 1), *rest)

        plain.settle = wrong
    return Planted()


def other_torch() -> Planted:
    """Rank 1 has another version of torch."""
    if own_rank() == 1:
        agreement.torch.__version__ = "1.0"  # type: ignore[assignment]
    return Planted()
