"""What speculation should gain: the closed forms of Leviathan et al. (arXiv:2211.17192), section 3.

They take every drafted token to be kept with the same probability alpha, independently, and a
check of gamma + 1 rows to cost no more than a plain pass. Real drafts and kernels violate both; a
benchmark reports these next to what it measured, never instead of it. Chen et al.
(arXiv:2302.01318) give no theory, only the loop time and the efficiency of their Figure 1.
"""

import math

from draftsmith.errors import InvalidRequestError

__all__ = [
    "chen_efficiency",
    "chen_loop_time",
    "does_pay",
    "expected_tokens",
    "guaranteed_factor",
    "measured_walltime_factor",
    "memory_factor",
    "operations_factor",
    "optimal_gamma",
    "oracle_factor",
    "oracle_gain",
    "walltime_factor",
]


def expected_tokens(alpha: float, gamma: int | float) -> float:
    """Tokens that one target pass yields on average, the emitted one included.

    (1 - alpha^(gamma+1)) / (1 - alpha), the mean of a geometric variable capped at gamma + 1.

    Args:
        alpha: Acceptance rate, in [0, 1]; at 1 the limit gamma + 1 holds.
        gamma: Tokens drafted per round; 0 is plain decoding, `math.inf` a draft without end.

    Returns:
        A number between 1 and gamma + 1; infinite only for alpha = 1 and gamma = inf.

    Raises:
        InvalidRequestError: If alpha or gamma is out of range.

    Example:
        >>> round(expected_tokens(0.8, 4), 4), expected_tokens(1.0, 4)
        (3.3616, 5.0)

    References:
        Leviathan et al., arXiv:2211.17192, equation 1 and Figure 2.
    """
    _check_alpha(alpha)
    if gamma != math.inf:
        _check_gamma(gamma)
    if alpha == 1:
        return gamma + 1.0
    if alpha == 0 or gamma == 0:
        return 1.0
    # expm1, because 1 - alpha^(gamma+1) loses every digit as alpha nears 1.
    return -math.expm1((gamma + 1) * math.log(alpha)) / (1 - alpha)


def walltime_factor(alpha: float, gamma: int, cost_ratio: float) -> float:
    """How many times faster than plain decoding: expected_tokens / (gamma * c + 1).

    Args:
        alpha: Acceptance rate, in [0, 1].
        gamma: Tokens drafted per round; 0 is plain decoding, whose factor is 1.
        cost_ratio: c, the time of one draft pass over the time of one plain target pass.

    Returns:
        The factor; below 1 where speculation loses.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(walltime_factor(0.8, 5, 0.0), 2), round(walltime_factor(0.75, 7, 0.02), 1)
        (3.69, 3.2)

    References:
        Leviathan et al., arXiv:2211.17192, theorem 3.8.
    """
    _check_gamma(gamma)
    _check_non_negative("cost_ratio", cost_ratio)
    return expected_tokens(alpha, gamma) / (gamma * cost_ratio + 1)


def operations_factor(alpha: float, gamma: int, operations_ratio: float) -> float:
    """How many times more arithmetic than plain decoding, the price of the speed.

    (gamma * c^ + gamma + 1) / expected_tokens: the rejected rows are the waste.

    Args:
        alpha: Acceptance rate, in [0, 1].
        gamma: Tokens drafted per round.
        operations_ratio: c^, operations per token of the draft over those of the target.

    Returns:
        The factor, never below 1.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(operations_factor(0.8, 5, 0.0), 2)
        1.63

    References:
        Leviathan et al., arXiv:2211.17192, theorem 3.11.
    """
    _check_gamma(gamma)
    _check_non_negative("operations_ratio", operations_ratio)
    return (gamma * operations_ratio + gamma + 1) / expected_tokens(alpha, gamma)


def memory_factor(alpha: float, gamma: int | float) -> float:
    """The share of plain decoding's reads of target weights and cache that remains.

    1 / expected_tokens, because a round reads them once for all its rows.

    Args:
        alpha: Acceptance rate, in [0, 1].
        gamma: Tokens drafted per round; may be `math.inf`.

    Returns:
        A number between 1 / (gamma + 1) and 1; the draft's own reads are not in it.

    Raises:
        InvalidRequestError: If alpha or gamma is out of range.

    Example:
        >>> round(memory_factor(0.8, 4), 4)
        0.2975

    References:
        Leviathan et al., arXiv:2211.17192, section 3.4.
    """
    return 1 / expected_tokens(alpha, gamma)


def optimal_gamma(alpha: float, cost_ratio: float, max_gamma: int = 32) -> int:
    """The draft length with the largest `walltime_factor`; 0 says not to speculate.

    Args:
        alpha: Acceptance rate, in [0, 1].
        cost_ratio: c, the time of one draft pass over the time of one plain target pass.
        max_gamma: The longest draft to consider.

    Returns:
        The smallest of the best lengths; above 0 exactly where `does_pay` holds.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> optimal_gamma(0.8, 0.05), optimal_gamma(0.2, 0.5)
        (8, 0)

    References:
        Leviathan et al., arXiv:2211.17192, section 3.5 and Figure 3.
    """
    _check_alpha(alpha)
    _check_non_negative("cost_ratio", cost_ratio)
    _check_gamma(max_gamma, name="max_gamma")
    gamma = 0
    # The first step down is final: the gain of one more draft only falls as gamma grows.
    while gamma < max_gamma and _does_next_draft_pay(alpha, gamma, cost_ratio):
        gamma += 1
    return gamma


def does_pay(alpha: float, cost_ratio: float) -> bool:
    """Whether some draft length beats plain decoding: alpha > c.

    Args:
        alpha: Acceptance rate, in [0, 1].
        cost_ratio: c, the time of one draft pass over the time of one plain target pass.

    Returns:
        False at equality, where the best that speculation does is to break even.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> does_pay(0.2, 0.1), does_pay(0.1, 0.1)
        (True, False)

    References:
        Leviathan et al., arXiv:2211.17192, corollary 3.9; its converse follows from theorem 3.8.
    """
    _check_alpha(alpha)
    _check_non_negative("cost_ratio", cost_ratio)
    return alpha > cost_ratio


def guaranteed_factor(alpha: float, cost_ratio: float) -> float:
    """The gain that some draft length reaches at least, gamma = 1: (1 + alpha) / (1 + c).

    Args:
        alpha: Acceptance rate, in [0, 1].
        cost_ratio: c, the time of one draft pass over the time of one plain target pass.

    Returns:
        The factor; above 1 where `does_pay` holds, and no guarantee elsewhere.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(guaranteed_factor(0.8, 0.05), 4)
        1.7143

    References:
        Leviathan et al., arXiv:2211.17192, corollary 3.9.
    """
    _check_alpha(alpha)
    _check_non_negative("cost_ratio", cost_ratio)
    return (1 + alpha) / (1 + cost_ratio)


def oracle_factor(alpha: float, cost_ratio: float) -> float:
    """The speed of a drafter that knows beforehand how many of its tokens will be kept.

    1 / ((1 - alpha) + c * alpha): such a round drafts alpha / (1 - alpha) tokens on average and
    wastes none. No way of choosing gamma is faster.

    Args:
        alpha: Acceptance rate, in [0, 1].
        cost_ratio: c, the time of one draft pass over the time of one plain target pass. Above 1
            the oracle does not draft, and the factor is 1.

    Returns:
        The factor, at least 1; infinite for a perfect draft that costs nothing.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(oracle_factor(0.8, 0.05), 4)
        4.1667

    References:
        Leviathan et al., arXiv:2211.17192, section 3.5, gives 1 / (1 - alpha) tokens per pass.
    """
    _check_alpha(alpha)
    _check_non_negative("cost_ratio", cost_ratio)
    time_per_token = (1 - alpha) + alpha * min(cost_ratio, 1.0)
    return 1 / time_per_token if time_per_token > 0 else math.inf


def oracle_gain(alpha: float, cost_ratio: float, max_gamma: int = 32) -> float:
    """What choosing gamma anew each round could add at most to the best fixed gamma.

    Args:
        alpha: Acceptance rate, in [0, 1].
        cost_ratio: c, the time of one draft pass over the time of one plain target pass.
        max_gamma: The longest fixed draft to compare with.

    Returns:
        A share of the fixed speed: 0.05 stands for 5 % faster.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(oracle_gain(0.9, 0.01), 3)
        0.226

    References:
        Leviathan et al., arXiv:2211.17192, section 3.5, which says "up to ~60%".
    """
    fixed = walltime_factor(alpha, optimal_gamma(alpha, cost_ratio, max_gamma), cost_ratio)
    return oracle_factor(alpha, cost_ratio) / fixed - 1


def chen_loop_time(gamma: int, draft_ms: float, target_ms: float) -> float:
    """Milliseconds of one draft-and-check loop: gamma * draft_ms + target_ms.

    Args:
        gamma: Tokens drafted per loop, the paper's K.
        draft_ms: Milliseconds of one draft pass.
        target_ms: Milliseconds of one check, taken to be the same for every gamma.

    Returns:
        Milliseconds.

    Raises:
        InvalidRequestError: If an argument is out of range.

    Example:
        >>> round(chen_loop_time(4, 1.8, 14.1), 1)
        21.3

    References:
        Chen et al., arXiv:2302.01318, sections 6.1 and 6.3 and Figure 1, right.
    """
    _check_gamma(gamma)
    _check_non_negative("draft_ms", draft_ms)
    _check_non_negative("target_ms", target_ms)
    return gamma * draft_ms + target_ms


def chen_efficiency(num_tokens: float, gamma: int) -> float:
    """The share of the gamma + 1 rows of a loop that became text: num_tokens / (gamma + 1).

    The paper calls it acceptance rate; it counts the emitted token, so it is 1 at gamma = 0 and
    is not alpha.

    Args:
        num_tokens: Tokens that a loop yields on average, the emitted one included.
        gamma: Tokens drafted per loop, the paper's K.

    Returns:
        A number in [0, 1].

    Raises:
        InvalidRequestError: If gamma is out of range, or a loop cannot yield so many tokens.

    Example:
        >>> round(chen_efficiency(3.91, 4), 2), chen_efficiency(1.0, 0)
        (0.78, 1.0)

    References:
        Chen et al., arXiv:2302.01318, Figure 1, middle.
    """
    _check_gamma(gamma)
    _check_num_tokens(num_tokens, gamma)
    return num_tokens / (gamma + 1)


def measured_walltime_factor(
    num_tokens: float,
    gamma: int,
    draft_cost: float,
    verify_cost: float,
    overhead: float = 0.0,
) -> float:
    """Theorem 3.8 without its premise that a check costs one plain pass.

    num_tokens / (gamma * draft_cost + verify_cost + overhead), every cost in plain target passes.

    Args:
        num_tokens: Tokens per round on average, measured or from `expected_tokens`.
        gamma: Tokens drafted per round.
        draft_cost: One draft pass over one plain target pass, the cost ratio c.
        verify_cost: T(gamma + 1) / T(1), the check over one plain target pass; above 0.
        overhead: The rest of a round (sampling, verdict, commit) over one plain target pass.

    Returns:
        How many times faster than plain decoding.

    Raises:
        InvalidRequestError: If an argument is out of range, or a round cannot yield so many tokens.

    Example:
        >>> round(measured_walltime_factor(3.36, 4, 0.05, 1.4, 0.1), 3)
        1.976
    """
    _check_gamma(gamma)
    _check_num_tokens(num_tokens, gamma)
    _check_non_negative("draft_cost", draft_cost)
    _check_non_negative("verify_cost", verify_cost)
    _check_non_negative("overhead", overhead)
    if verify_cost == 0:
        raise InvalidRequestError("verify_cost must be above 0, got 0; measure T(gamma+1) / T(1)")
    return num_tokens / (gamma * draft_cost + verify_cost + overhead)


def _does_next_draft_pay(alpha: float, gamma: int, cost_ratio: float) -> bool:
    """Whether gamma + 1 is strictly faster than gamma: the token it adds against its time."""
    added_tokens = alpha ** (gamma + 1)
    return added_tokens * (1 + gamma * cost_ratio) > cost_ratio * expected_tokens(alpha, gamma)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise InvalidRequestError(f"alpha must be between 0 and 1, got {alpha!r}")


def _check_gamma(gamma: int | float, name: str = "gamma") -> None:
    if not isinstance(gamma, int) or gamma < 0:
        raise InvalidRequestError(f"{name} must be a whole number, 0 or more, got {gamma!r}")


def _check_non_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise InvalidRequestError(f"{name} must be 0 or more and finite, got {value!r}")


def _check_num_tokens(num_tokens: float, gamma: int) -> None:
    if not 0 <= num_tokens <= gamma + 1:
        raise InvalidRequestError(
            f"num_tokens must be between 0 and gamma + 1 = {gamma + 1}, got {num_tokens!r}"
        )
