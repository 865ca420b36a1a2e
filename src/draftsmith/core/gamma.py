"""Gamma: how many tokens a round drafts."""

from typing import Literal, TypeAlias

from draftsmith.core.values import check_whole, require
from draftsmith.errors import InvalidRequestError

__all__ = ["MAX_BRANCHES", "MAX_GAMMA", "Gamma", "check_branches", "check_gamma", "gamma_for"]

MAX_GAMMA = 32
"""The longest draft of one round."""

MAX_BRANCHES = 8
"""The most guesses for one position of a draft."""

Gamma: TypeAlias = int | Literal["auto"]
"""Drafted tokens per round; "auto" leaves it to the measured costs and acceptance."""

_DEFAULT_GAMMA = 4


def check_gamma(gamma: object) -> Gamma:
    """Return `gamma` if it is a legal draft length.

    Raises:
        InvalidRequestError: If it is not a whole number from 0 to `MAX_GAMMA`, nor "auto".
    """
    if isinstance(gamma, str) and gamma == "auto":
        return "auto"
    rule = f"between 0 and {MAX_GAMMA}, or auto"
    number = check_whole("gamma", gamma, rule)
    require(0 <= number <= MAX_GAMMA, "gamma", rule, gamma)
    return number


def check_branches(branches: object) -> int:
    """Return `branches` if it is a legal number of guesses for one position of a draft.

    Raises:
        InvalidRequestError: If it is not a whole number from 1, a chain, to `MAX_BRANCHES`.
    """
    rule = f"between 1 and {MAX_BRANCHES}"
    number = check_whole("branches", branches, rule)
    require(1 <= number <= MAX_BRANCHES, "branches", rule, branches)
    return number


def gamma_for(gamma: object, *, has_draft: bool) -> Gamma:
    """Gamma as it holds: by default 4 with a draft, and 0 without.

    Raises:
        InvalidRequestError: If it is illegal, or would draft without a draft.
    """
    if gamma is None:
        return _DEFAULT_GAMMA if has_draft else 0
    checked = check_gamma(gamma)
    if checked and not has_draft:
        raise InvalidRequestError(f"gamma={gamma!r} needs a draft: give one, or leave gamma out")
    return checked
