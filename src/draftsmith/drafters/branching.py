"""The same drafter with another number of branches: what it has loaded is shared."""

from typing import Protocol, runtime_checkable

from draftsmith.drafters.contract import Drafter
from draftsmith.errors import InvalidRequestError

__all__ = ["Branching", "branching"]


@runtime_checkable
class Branching(Protocol):
    """A drafter that grows trees."""

    def with_branches(self, branches: int) -> Drafter:
        """The same over what it has loaded, with so many guesses for each position at most."""
        ...


def branching(drafter: Drafter, branches: int) -> Drafter:
    """A drafter that guesses so often for a position, over the same model.

    Args:
        drafter: Loaded.
        branches: Guesses for each position at most.

    Raises:
        InvalidRequestError: If it is no drafter that grows trees, or the number is out of range.
    """
    if branches == drafter.branches:
        return drafter
    if isinstance(drafter, Branching):
        return drafter.with_branches(branches)
    raise InvalidRequestError(
        f"branches={branches} is for a draft model of the target's vocabulary or a head, and the "
        f"draft is {drafter.name}: leave it out"
    )
