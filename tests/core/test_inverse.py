"""The formulas read backwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core.inverse import best_walltime_range, implied_alpha, walltime_range
from draftsmith.core.theory import expected_tokens, walltime_factor
from draftsmith.errors import InvalidRequestError

rates = st.floats(0.01, 0.99)
costs = st.floats(0.0, 0.5)


@given(alpha=rates, gamma=st.integers(1, 16))
def test_the_implied_alpha_undoes_the_expected_tokens(alpha: float, gamma: int) -> None:
    assert implied_alpha(expected_tokens(alpha, gamma), gamma) == pytest.approx(alpha, abs=1e-9)


@pytest.mark.parametrize(("tokens", "gamma"), [(0.9, 4), (5.1, 4), (1.0, 0), (float("nan"), 4)])
def test_tokens_that_no_alpha_yields_are_refused(tokens: float, gamma: int) -> None:
    with pytest.raises(InvalidRequestError, match="num_tokens must be between 1 and gamma"):
        implied_alpha(tokens, gamma)


@given(
    alpha=rates, cost=costs, gamma=st.integers(0, 12), up=st.floats(-1, 1), right=st.floats(-1, 1)
)
def test_no_inputs_within_their_rounding_leave_the_range(
    alpha: float, cost: float, gamma: int, up: float, right: float
) -> None:
    slack = {"alpha_slack": 0.005, "cost_slack": 0.0005}
    inside = min(1.0, max(0.0, alpha + up * 0.005)), max(0.0, cost + right * 0.0005)
    low, high = walltime_range(alpha, gamma, cost, **slack)
    factor = walltime_factor(inside[0], gamma, inside[1])
    assert low - 1e-12 <= factor <= high + 1e-12
    assert factor <= best_walltime_range(alpha, cost, **slack).high + 1e-12
