"""The processes of one host that run models together, as one of them sees it."""

from dataclasses import dataclass

import torch

from draftsmith.parallel.exchange import Exchange
from draftsmith.parallel.orders import Orders

__all__ = ["Group", "current_group", "enter"]


@dataclass(frozen=True)
class Group:
    """One rank's view of its group.

    Attributes:
        rank: Which this process is; 0 decides.
        size: Ranks.
        device: This rank's.
        exchange: How ranks hear of each other's numbers within a pass.
        orders: Rank 0's way to tell the others what to do; None on the others.
    """

    rank: int
    size: int
    device: torch.device
    exchange: Exchange
    orders: Orders | None = None


_entered: list[Group] = []


def enter(group: Group) -> None:
    """Make a group this process's own; there is one for as long as it lives."""
    assert not _entered
    _entered.append(group)


def current_group() -> Group | None:
    """The group of this process; None while it runs models alone."""
    return _entered[0] if _entered else None
