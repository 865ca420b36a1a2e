"""The same drafter with another number of branches: what it has loaded is shared."""

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.errors import InvalidRequestError

__all__ = ["branching"]


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
    if isinstance(drafter, ModelDrafter):
        return ModelDrafter(drafter.model, drafter.tokenizer, branches)
    if isinstance(drafter, HeadDrafter):
        return HeadDrafter(drafter.head, drafter.name, branches)
    raise InvalidRequestError(
        f"branches={branches} is for a draft model of the target's vocabulary or a head, and the "
        f"draft is {drafter.name}: leave it out"
    )
