"""The formulas of `theory` read backwards: what printed or measured numbers say of their inputs."""

from draftsmith.core.statistics import Interval
from draftsmith.core.theory import expected_tokens, optimal_gamma, walltime_factor
from draftsmith.errors import InvalidRequestError

__all__ = ["best_walltime_range", "implied_alpha", "walltime_range"]

_NUM_HALVINGS = 60
"""More than the bits of a float's fraction."""


def implied_alpha(num_tokens: float, gamma: int) -> float:
    """The acceptance rate at which a round yields this many tokens, if all positions are alike.

    Args:
        num_tokens: Tokens per round on average, 1 … gamma + 1.
        gamma: Tokens drafted per round, 1 or more.

    Returns:
        The alpha for which `expected_tokens(alpha, gamma)` is `num_tokens`.

    Raises:
        InvalidRequestError: If no alpha can yield so many.

    Example:
        >>> round(implied_alpha(3.3616, 4), 6)
        0.8

    References:
        Leviathan et al., arXiv:2211.17192, equation 1, solved for alpha.
    """
    if gamma < 1 or not 1 <= num_tokens <= gamma + 1:
        raise InvalidRequestError(
            f"num_tokens must be between 1 and gamma + 1 with a gamma of 1 or more, "
            f"got {num_tokens!r} with gamma {gamma}"
        )
    low, high = 0.0, 1.0
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        if expected_tokens(middle, gamma) < num_tokens:
            low = middle
        else:
            high = middle
    return high


def walltime_range(
    alpha: float, gamma: int, cost_ratio: float, *, alpha_slack: float, cost_slack: float
) -> Interval:
    """Between which factors theorem 3.8 lies when its inputs are known to a rounding only.

    Args:
        alpha: Acceptance rate as printed.
        gamma: Tokens drafted per round.
        cost_ratio: c as printed.
        alpha_slack: Half a unit of alpha's last printed digit.
        cost_slack: Half a unit of c's last printed digit.

    Example:
        >>> low, high = walltime_range(0.68, 5, 0.04, alpha_slack=0.005, cost_slack=0.005)
        >>> round(low, 2), round(high, 2)
        (2.27, 2.42)
    """
    # The factor rises with alpha and falls with c: the ends are in the corners.
    low = walltime_factor(max(0.0, alpha - alpha_slack), gamma, cost_ratio + cost_slack)
    high = walltime_factor(min(1.0, alpha + alpha_slack), gamma, max(0.0, cost_ratio - cost_slack))
    return Interval(low, high)


def best_walltime_range(
    alpha: float, cost_ratio: float, *, alpha_slack: float, cost_slack: float
) -> Interval:
    """The same for the best gamma of every input, which bounds what any gamma reaches.

    Example:
        >>> low, high = best_walltime_range(0.62, 0.015, alpha_slack=0.005, cost_slack=0.0005)
        >>> round(low, 2), round(high, 2)
        (2.3, 2.36)
    """
    corners = (
        (max(0.0, alpha - alpha_slack), cost_ratio + cost_slack),
        (min(1.0, alpha + alpha_slack), max(0.0, cost_ratio - cost_slack)),
    )
    return Interval(
        *(walltime_factor(a, optimal_gamma(a, c, max_gamma=1000), c) for a, c in corners)
    )
