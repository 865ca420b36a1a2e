"""The processes of one host that run models together, as one of them sees it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from draftsmith.parallel.exchange import Exchange
from draftsmith.parallel.orders import Orders

__all__ = ["Group", "current_group", "enter", "leave"]


@dataclass(frozen=True)
class Group:
    """One rank's view of its group.

    Attributes:
        rank: Which this process is; 0 decides.
        size: Ranks.
        device: This rank's.
        exchange: How ranks hear of each other's numbers within a pass.
        orders: Rank 0's way to tell the others what to do; None on the others.
        on_failure: On rank 0: called by any thread when a rank has failed, so that nothing here
            waits for it any more. The other ranks end at once, whatever they wait for.
        at_end: Called, the last one first, before torch's process group is let go of: graphs that
            hold its collectives must be gone by then.
    """

    rank: int
    size: int
    device: torch.device
    exchange: Exchange
    orders: Orders | None = None
    on_failure: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    at_end: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])


_entered: list[Group] = []


def enter(group: Group) -> None:
    """Make a group this process's own; there is one at a time."""
    assert not _entered
    _entered.append(group)


def leave() -> None:
    """This process runs models alone again."""
    _entered.clear()


def current_group() -> Group | None:
    """The group of this process; None while it runs models alone."""
    return _entered[0] if _entered else None
