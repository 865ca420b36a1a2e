"""The stated error rates hold: summed exactly where the sums are small."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.audit.law import Power
from draftsmith.audit.significance import (
    detectable_distance,
    detectable_shift,
    holm,
    judge_acceptance,
    judge_law,
    samples_needed,
)
from draftsmith.errors import InvalidRequestError


@pytest.mark.parametrize("law", [(0.5, 0.3, 0.2), (0.9, 0.09, 0.01), (0.98, 0.01, 0.01)])
@pytest.mark.parametrize("count", [4, 15])
def test_a_p_value_is_small_no_more_often_than_it_says(law: tuple[float, ...], count: int) -> None:
    outcomes: list[tuple[float, float]] = []
    for first, second in product(range(count + 1), repeat=2):
        if first + second <= count:
            counts = (first, second, count - first - second)
            mass = math.factorial(count) * math.prod(
                share**n / math.factorial(n) for share, n in zip(law, counts, strict=True)
            )
            test = judge_law(torch.tensor(counts), torch.tensor(law).double())
            outcomes.append((test.p_value, mass))
    assert sum(mass for _, mass in outcomes) == pytest.approx(1)
    for p_value, _ in outcomes:
        assert sum(mass for p, mass in outcomes if p <= p_value) <= p_value + 1e-12


def test_a_text_that_cannot_come_fails_at_once() -> None:
    test = judge_law(torch.tensor([10_000, 1]), torch.tensor([1.0, 0.0]))
    assert test.p_value == 0
    assert judge_law(torch.tensor([10_000, 0]), torch.tensor([1.0, 0.0])).p_value == 1


@pytest.mark.parametrize(("law", "wrong"), [(0.5, 0.62), (0.1, 0.22), (0.9, 0.78)])
def test_the_stated_power_is_there(law: float, wrong: float) -> None:
    rate, power = 1e-6, 0.9
    count = samples_needed(abs(wrong - law), 2, rate, power)
    assert detectable_distance(count, 2, rate, power) <= abs(wrong - law) + 1e-9
    seen = 0.0
    for came in range(count + 1):
        test = judge_law(torch.tensor([came, count - came]), torch.tensor([law, 1 - law]).double())
        if test.p_value <= rate:
            seen += math.exp(
                math.lgamma(count + 1)
                - math.lgamma(came + 1)
                - math.lgamma(count - came + 1)
                + came * math.log(wrong)
                + (count - came) * math.log1p(-wrong)
            )
    assert seen >= power


@pytest.mark.parametrize("rates", [(0.5,) * 10, (0.1, 0.9, 0.3, 0.99, 0.01, 0.6, 0.8, 0.2)])
def test_the_evidence_against_true_acceptance_rates_is_1_on_average(
    rates: tuple[float, ...],
) -> None:
    betas = torch.tensor(rates).double()
    mean = 0.0
    for kept in product((0.0, 1.0), repeat=len(rates)):
        mass = math.prod(b if k else 1 - b for k, b in zip(kept, rates, strict=True))
        test = judge_acceptance(torch.tensor(kept).double(), betas)
        # Where the evidence is below 1 the p-value says 1: at most that much is lost.
        mean += mass * (1 / test.p_value if test.p_value < 1 else 0.0)
    assert mean <= 1 + 1e-9


def test_a_shifted_acceptance_rate_is_seen_and_a_true_one_is_not() -> None:
    betas = torch.full((2000,), 0.7).double()
    true, shifted = torch.zeros(2000), torch.zeros(2000)
    true[:1400], shifted[:1200] = 1, 1
    assert judge_acceptance(true, betas).p_value == 1
    assert judge_acceptance(shifted, betas).p_value < 1e-12
    assert detectable_shift(2000, 0.7, 1e-9, 0.99) < 0.1
    assert detectable_shift(20, 0.7, 1e-9, 0.99) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_no_less_than_bonferroni_and_in_order(p_values: list[float]) -> None:
    rejected = holm(p_values, 0.05)
    for p_value, is_rejected in zip(p_values, rejected, strict=True):
        assert is_rejected or p_value > 0.05 / len(p_values)
        assert not is_rejected or p_value <= 0.05
    kept = [p for p, gone in zip(p_values, rejected, strict=True) if not gone]
    gone = [p for p, is_gone in zip(p_values, rejected, strict=True) if is_gone]
    assert not kept or not gone or max(gone) <= min(kept)


def test_too_few_samples_for_the_power_are_refused_with_the_number_needed() -> None:
    needed = Power(detects=0.1).samples(16, 6)
    assert Power(detects=0.1, num_samples=needed).samples(16, 6) == needed
    with pytest.raises(InvalidRequestError, match=f"give --samples {needed}"):
        Power(detects=0.1, num_samples=needed - 1).samples(16, 6)


def test_a_feasible_distance_is_needed() -> None:
    with pytest.raises(InvalidRequestError, match="detect a larger one"):
        Power(detects=1e-6).samples(16, 6)
    with pytest.raises(InvalidRequestError, match="power must be above 0 and below 1, got 1"):
        Power(power=1.0)
