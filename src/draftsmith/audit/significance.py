"""Tests whose false-fail rates are bounds that hold at every sample size, not approximations."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.errors import InvalidRequestError

__all__ = [
    "AcceptanceTest",
    "LawTest",
    "detectable_distance",
    "detectable_shift",
    "holm",
    "judge_acceptance",
    "judge_law",
    "samples_needed",
]

_MOST_SAMPLES = 10**9
_TILTS = tuple(
    sign * size for size in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2) for sign in (1, -1)
)


class LawTest(NamedTuple):
    """Outcomes beside the law that they should follow."""

    num_samples: int
    num_cells: int
    """Outcomes that have mass."""
    statistic: float
    """G = 2 sum of observed · ln(observed / expected); infinite where an outcome has no mass."""
    distance: float
    """Total variation between the observed shares and the law."""
    p_value: float
    """An upper bound."""


class AcceptanceTest(NamedTuple):
    """Kept drafts beside the probabilities with which each should have been kept."""

    num_tested: int
    num_accepted: int
    expected: float
    """Mean probability, 1 - TV of the two laws at each tested position."""
    p_value: float
    """An upper bound."""

    @property
    def observed(self) -> float:
        """Share of tested drafts that were kept."""
        return self.num_accepted / max(self.num_tested, 1)


def judge_law(observed: Int[Tensor, " cells"], law: Float[Tensor, " cells"]) -> LawTest:
    """G-test of counts against a law.

    Args:
        observed: How often each outcome came.
        law: Its probabilities.

    References:
        R. Agrawal, "Finite-Sample Concentration of the Multinomial in Relative Entropy"
        (arXiv:1904.02291), theorem 1.2: with x = G / 2 > k - 1 = m, the tail is at most
        exp(-x) (e x / m)^m.
    """
    num_samples, law = int(observed.sum()), law.double() / law.double().sum()
    shares = observed.double() / max(num_samples, 1)
    distance = 0.5 * float((shares - law).abs().sum())
    num_cells = int((law > 0).sum())
    if bool((observed[law <= 0] > 0).any()):
        return LawTest(num_samples, num_cells, math.inf, distance, 0.0)
    seen = observed > 0
    logs = (shares[seen] / law[seen]).log()
    statistic = max(0.0, 2 * float((observed[seen] * logs).sum()))
    return LawTest(
        num_samples, num_cells, statistic, distance, math.exp(_log_tail(statistic / 2, num_cells))
    )


def judge_acceptance(
    accepted: Float[Tensor, " tests"], probabilities: Float[Tensor, " tests"]
) -> AcceptanceTest:
    """Whether drafts were kept as often as their probabilities say; two-sided.

    Each probability is fixed before its test, so exp(l · kept) / (1 + beta (e^l - 1)), multiplied
    up, is a martingale of mean 1 for every tilt l. So is the mean over a grid of tilts, and by
    Ville's inequality it exceeds 1 / rate with probability `rate` at most.

    Args:
        accepted: 1 where a tested draft was kept, else 0, in the order of the tests.
        probabilities: Sum of min(target, draft) at each test.

    References:
        Ville 1939; Howard et al., "Time-uniform Chernoff bounds" (arXiv:1808.03204).
    """
    kept, betas = accepted.double(), probabilities.double().clamp(0.0, 1.0)
    count, total = len(kept), int(kept.sum())
    mean = float(betas.mean()) if count else 0.0
    logs = torch.tensor(
        [tilt * total - float(torch.log1p(betas * math.expm1(tilt)).sum()) for tilt in _TILTS],
        dtype=torch.float64,
    )
    log_evidence = float(logs.logsumexp(0)) - math.log(len(_TILTS))
    return AcceptanceTest(count, total, mean, math.exp(min(0.0, -log_evidence)))


def holm(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses are rejected, so that any false one is with probability `rate` at most.

    Example:
        >>> holm([0.001, 0.4, 0.02], rate=0.05)
        [True, False, True]

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        if p_values[index] > rate / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def detectable_distance(num_samples: int, num_cells: int, rate: float, power: float) -> float:
    r"""The total variation that `judge_law` detects whatever the wrong law is.

    With A the outcomes that the wrong law favours, KL(observed, law) is at least 2 (observed(A) -
    law(A))^2 by Pinsker's inequality, and observed(A) falls short of the wrong law's by
    sqrt(ln(1 / (1 - power)) / 2n) at most, by Hoeffding's. So the distance is

    $$ \sqrt{x / 2n} + \sqrt{\ln(1 / (1 - power)) / 2n}, $$

    where x is the critical value of G / 2.
    """
    critical = _critical(num_cells, rate)
    return math.sqrt(critical / (2 * num_samples)) + math.sqrt(
        -math.log(1 - power) / (2 * num_samples)
    )


def samples_needed(distance: float, num_cells: int, rate: float, power: float) -> int:
    """The fewest samples with which `detectable_distance` is `distance`.

    Raises:
        InvalidRequestError: If no feasible number is enough.
    """
    one = detectable_distance(1, num_cells, rate, power)
    count = math.ceil((one / distance) ** 2)
    if count > _MOST_SAMPLES:
        raise InvalidRequestError(
            f"a total variation of {distance:g} takes {count:.1e} samples: detect a larger one"
        )
    return count


def detectable_shift(num_tests: int, mean: float, rate: float, power: float) -> float:
    """About how far off an acceptance rate must be for `judge_acceptance` to see it.

    The normal approximation of the evidence at the best tilt; 1 if no shift is seen.
    """
    needed = math.log(len(_TILTS) / rate)
    quantile = math.sqrt(-2 * math.log(1 - power))
    for step in range(1, 1000):
        shift = step / 1000
        for shifted in (mean + shift, mean - shift):
            if 0 <= shifted <= 1 and _evidence(num_tests, mean, shifted, quantile) >= needed:
                return shift
    return 1.0


def _evidence(num_tests: int, mean: float, shifted: float, quantile: float) -> float:
    """The log-evidence that is exceeded with the power asked for."""
    spread = quantile * math.sqrt(num_tests * shifted * (1 - shifted))
    return max(
        num_tests * (tilt * shifted - math.log1p(mean * math.expm1(tilt))) - abs(tilt) * spread
        for tilt in _TILTS
    )


def _log_tail(half: float, num_cells: int) -> float:
    """Log of the bound on P(G / 2 >= half)."""
    freedom = num_cells - 1
    if half <= freedom:
        return 0.0
    if not freedom:
        return 0.0 if half <= 1e-9 else -math.inf
    return min(0.0, -half + freedom * (1 + math.log(half / freedom)))


def _critical(num_cells: int, rate: float) -> float:
    """The G / 2 whose tail bound is `rate`, by bisection."""
    low, high = float(num_cells), 10.0 * num_cells - 10 * math.log(rate)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        is_enough = _log_tail(middle, num_cells) <= math.log(rate)
        low, high = (low, middle) if is_enough else (middle, high)
    return high
