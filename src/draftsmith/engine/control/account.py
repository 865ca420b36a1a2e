"""Whose the rounds of a ledger were: shared out when a batch changes, not every round."""

from collections.abc import Sequence
from operator import is_not
from typing import Protocol, runtime_checkable

from draftsmith.engine.control.contract import Controller, Ledger

__all__ = ["Account", "Holder"]


@runtime_checkable
class Holder(Protocol):
    """Who has a ledger of its own."""

    ledger: Ledger | None
    """Its share of the rounds' times, where the controller keeps a ledger."""


class Account:
    """Shares a controller's ledger out among the sequences of its rounds.

    All rounds of an unchanged batch are shared at once: what one has, all have the same of. So a
    round costs no more than to see that its batch is the last one's.

    Args:
        controller: Whose ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._shared = controller.ledger or Ledger()
        """What was shared out, or was there before."""
        self._holders: Sequence[Holder] = ()

    def begin(self, holders: Sequence[Holder]) -> None:
        """Before a round of these, whose list is not changed afterwards."""
        last = self._holders
        if len(holders) != len(last) or any(map(is_not, holders, last)):
            self.settle()
            self._holders = holders

    def settle(self) -> None:
        """Share out what has come since the last time; before a ledger is read."""
        holders, self._holders = self._holders, ()
        ledger = self._controller.ledger
        if ledger is None or not holders:
            return
        share = (ledger - self._shared).share(len(holders))
        self._shared = ledger
        for one in holders:
            one.ledger = share + (one.ledger or Ledger())
