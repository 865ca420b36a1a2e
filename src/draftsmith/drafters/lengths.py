"""Whether a drafter can draft as much as is asked of it."""

from draftsmith.drafters.contract import Drafter
from draftsmith.errors import InvalidRequestError

__all__ = ["check_fits", "fits"]


def fits(gamma: int, drafter: Drafter) -> bool:
    """Whether a draft can have so many tokens: a tree's may stand beside each other.

    Args:
        gamma: Tokens of a draft.
        drafter: As it is used, chains or trees.

    Example:
        >>> from draftsmith.drafters import PromptLookupDrafter
        >>> fits(32, PromptLookupDrafter())
        True
    """
    return drafter.branches > 1 or gamma <= drafter.longest


def check_fits(gamma: int, drafter: Drafter) -> None:
    """Refuse a draft that is longer than the drafter's are.

    Args:
        gamma: Tokens of a draft.
        drafter: As it is used.

    Raises:
        InvalidRequestError: With the longest that it can draft.
    """
    if not fits(gamma, drafter):
        raise InvalidRequestError(
            f"gamma={gamma} is beyond the {drafter.longest} tokens that {drafter.name} drafts at "
            f"once: give at most {drafter.longest}, or auto"
        )
