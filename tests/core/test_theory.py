import math
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from draftsmith.core import theory
from draftsmith.errors import InvalidRequestError

unit = st.floats(0.0, 1.0)
open_unit = st.floats(0.01, 0.99)
lengths = st.integers(0, 40)
costs = st.floats(0.0, 2.0)


def simulated_tokens(alpha: float, gamma: int) -> Fraction:
    """The mean of the capped geometric law, summed exactly: each outcome times its probability."""
    rate = Fraction(alpha)
    rejected_after = [(1 - rate) * rate**kept for kept in range(gamma)]
    laws = [*rejected_after, rate**gamma]
    assert sum(laws) == 1
    return sum(((kept + 1) * law for kept, law in enumerate(laws)), Fraction(0))


# --- equation 1 -----------------------------------------------------------------------------


@given(alpha=unit, gamma=st.integers(0, 24))
def test_expected_tokens_is_the_mean_of_the_capped_geometric_law(alpha: float, gamma: int) -> None:
    exact = float(simulated_tokens(alpha, gamma))
    assert theory.expected_tokens(alpha, gamma) == pytest.approx(exact, rel=1e-13)


@given(distance=st.floats(0.0, 1e-6), gamma=st.integers(0, 24))
def test_expected_tokens_keeps_its_digits_as_alpha_nears_one(distance: float, gamma: int) -> None:
    alpha = 1 - distance
    exact = float(simulated_tokens(alpha, gamma))
    assert theory.expected_tokens(alpha, gamma) == pytest.approx(exact, rel=1e-13)


@given(steps=st.integers(0, 4096), gamma=lengths)
def test_rounding_never_yields_more_tokens_than_rows(steps: int, gamma: int) -> None:
    alpha = 1 - steps * 2.0**-53
    assert 1 <= theory.expected_tokens(alpha, gamma) <= gamma + 1


@given(gamma=lengths)
def test_a_perfect_draft_is_kept_whole(gamma: int) -> None:
    assert theory.expected_tokens(1.0, gamma) == gamma + 1


@given(gamma=lengths)
def test_a_draft_that_is_never_kept_leaves_the_emitted_token(gamma: int) -> None:
    assert theory.expected_tokens(0.0, gamma) == 1


@given(alpha=unit)
def test_without_a_draft_a_pass_yields_one_token(alpha: float) -> None:
    assert theory.expected_tokens(alpha, 0) == 1
    assert theory.walltime_factor(alpha, 0, 0.5) == 1


@pytest.mark.parametrize("alpha", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_figure_2_ends_at_one_over_one_minus_alpha(alpha: float) -> None:
    limit = 1 / (1 - alpha)
    assert theory.expected_tokens(alpha, math.inf) == pytest.approx(limit, rel=1e-15)
    assert theory.expected_tokens(alpha, 1000) == pytest.approx(limit, rel=1e-12)
    assert theory.expected_tokens(alpha, 7) < limit


def test_an_endless_perfect_draft_yields_endless_tokens() -> None:
    assert theory.expected_tokens(1.0, math.inf) == math.inf
    assert theory.memory_factor(1.0, math.inf) == 0


@given(alpha=open_unit, gamma=st.integers(0, 10))
def test_a_longer_draft_yields_more_tokens(alpha: float, gamma: int) -> None:
    shorter, longer = (theory.expected_tokens(alpha, g) for g in (gamma, gamma + 1))
    assert longer >= shorter
    assert longer - shorter == pytest.approx(alpha ** (gamma + 1), abs=1e-12)


@given(low=unit, high=unit, gamma=lengths)
def test_a_better_draft_never_yields_fewer_tokens(low: float, high: float, gamma: int) -> None:
    assume(low < high)
    better, worse = (theory.expected_tokens(alpha, gamma) for alpha in (high, low))
    assert better >= worse * (1 - 1e-13)


# --- printed numbers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "gamma", "operations", "speed"),
    [
        (0.6, 2, "1.53", "1.96"),
        (0.7, 3, "1.58", "2.53"),
        (0.8, 2, "1.23", "2.44"),
        (0.8, 5, "1.63", "3.69"),
        (0.9, 2, "1.11", "2.71"),
        (0.9, 10, "1.60", "6.86"),
    ],
)
def test_table_1_holds_to_the_printed_digit(
    alpha: float, gamma: int, operations: str, speed: str
) -> None:
    assert f"{theory.operations_factor(alpha, gamma, 0.0):.2f}" == operations
    assert f"{theory.walltime_factor(alpha, gamma, 0.0):.2f}" == speed


TABLE_4 = [
    ("EnDe small t=0", 7, 0.75, 0.02, "3.2"),
    ("EnDe base t=0", 7, 0.80, 0.04, "3.3"),
    ("EnDe large t=0", 7, 0.82, 0.11, "2.5"),
    ("EnDe small t=1", 7, 0.62, 0.02, "2.3"),
    ("EnDe base t=1", 5, 0.68, 0.04, "2.4"),
    ("EnDe large t=1", 3, 0.71, 0.11, "2.0"),
    ("CNNDM small t=0", 5, 0.65, 0.02, "2.4"),
    ("CNNDM base t=0", 5, 0.73, 0.04, "2.6"),
    ("CNNDM large t=0", 3, 0.74, 0.11, "2.0"),
    ("CNNDM small t=1", 5, 0.53, 0.02, "1.9"),
    ("CNNDM base t=1", 3, 0.55, 0.04, "1.8"),
    ("CNNDM large t=1", 3, 0.56, 0.11, "1.6"),
]
# The paper rounded its inputs before it printed them; these rows then land one decimal lower.
SLIPS = {"EnDe base t=1": "2.3", "EnDe large t=1": "1.9", "CNNDM large t=1": "1.5"}


@pytest.mark.parametrize(("row", "gamma", "alpha", "cost_ratio", "printed"), TABLE_4)
def test_table_4_expects_the_printed_speed_but_for_three_slips(
    row: str, gamma: int, alpha: float, cost_ratio: float, printed: str
) -> None:
    speed = theory.walltime_factor(alpha, gamma, cost_ratio)
    assert f"{speed:.1f}" == SLIPS.get(row, printed)
    assert speed == pytest.approx(float(printed), abs=0.07)


def test_argmax_lenience_reaches_the_speeds_of_appendix_a5() -> None:
    alpha_by_lenience = {1.0: 0.75, 0.5: 0.75, 0.3: 0.80, 0.1: 0.87}
    speeds = [theory.walltime_factor(alpha, 8, 0.015) for alpha in alpha_by_lenience.values()]
    assert [f"{speed:.3f}" for speed in speeds] == ["3.303", "3.303", "3.865", "4.907"]


def test_a_free_bigram_draft_gains_a_quarter() -> None:
    assert theory.walltime_factor(0.2, 3, 0.0) == pytest.approx(1.248, rel=1e-14)


OPTIMAL_GAMMA = {
    0.01: (5, 7, 9, 11, 14, 17, 24),
    0.02: (4, 6, 8, 9, 11, 14, 19),
    0.05: (3, 4, 6, 7, 8, 10, 13),
    0.1: (2, 3, 4, 5, 6, 7, 10),
}
ALPHAS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


@pytest.mark.parametrize("cost_ratio", OPTIMAL_GAMMA)
def test_the_optimal_gamma_is_that_of_figure_3(cost_ratio: float) -> None:
    found = tuple(theory.optimal_gamma(alpha, cost_ratio) for alpha in ALPHAS)
    assert found == OPTIMAL_GAMMA[cost_ratio]


@pytest.mark.parametrize(
    ("alpha", "cost_ratio", "percent"),
    [(0.5, 0.01, "5.6"), (0.9, 0.01, "22.6"), (0.9, 0.05, "47.5"), (0.9, 0.1, "53.4")],
)
def test_an_oracle_adds_what_section_3_5_promises(
    alpha: float, cost_ratio: float, percent: str
) -> None:
    assert f"{100 * theory.oracle_gain(alpha, cost_ratio):.1f}" == percent


def test_chen_figure_1_is_consistent_with_its_loop_time() -> None:
    loop = theory.chen_loop_time(7, 2.07, 14.1)
    assert loop == pytest.approx(28.6, abs=0.05)
    assert theory.chen_loop_time(0, 1.8, 14.1) == 14.1
    humaneval, xsum = (128 * loop / (share * 8) for share in (0.68, 0.45))
    assert (round(humaneval), round(xsum)) == (673, 1017)


@pytest.mark.parametrize(("tokens", "efficiency"), [(2.98, 0.60), (3.20, 0.64), (3.91, 0.78)])
def test_chen_table_1_implies_the_printed_efficiency(tokens: float, efficiency: float) -> None:
    assert theory.chen_efficiency(tokens, 4) == pytest.approx(efficiency, abs=0.005)


@pytest.mark.parametrize(("efficiency", "speed"), [(0.80, "2.65"), (0.62, "2.05")])
def test_the_measured_factor_gives_chinchillas_theoretical_speed(
    efficiency: float, speed: str
) -> None:
    factor = theory.measured_walltime_factor(5 * efficiency, 4, 1.8 / 14.1, 1.0)
    assert f"{factor:.2f}" == speed


# --- wall time, operations and memory -------------------------------------------------------


@given(alpha=unit, gamma=lengths, cost_ratio=costs)
def test_the_measured_factor_contains_theorem_3_8(
    alpha: float, gamma: int, cost_ratio: float
) -> None:
    tokens = theory.expected_tokens(alpha, gamma)
    measured = theory.measured_walltime_factor(tokens, gamma, cost_ratio, 1.0)
    assert measured == pytest.approx(theory.walltime_factor(alpha, gamma, cost_ratio), rel=1e-14)


def test_the_measured_factor_charges_every_term_of_a_round() -> None:
    assert theory.measured_walltime_factor(3.0, 4, 0.25, 1.5, 0.5) == pytest.approx(1.0)


@given(alpha=unit, gamma=lengths, ratio=costs)
def test_speculation_never_saves_operations(alpha: float, gamma: int, ratio: float) -> None:
    assert theory.operations_factor(alpha, gamma, ratio) >= 1 - 1e-14


@given(gamma=lengths, ratio=costs)
def test_a_perfect_draft_wastes_only_its_own_operations(gamma: int, ratio: float) -> None:
    factor = theory.operations_factor(1.0, gamma, ratio)
    assert factor == pytest.approx(1 + ratio * gamma / (gamma + 1), rel=1e-14)


@given(alpha=unit, gamma=lengths)
def test_reads_shrink_by_the_tokens_of_a_pass(alpha: float, gamma: int) -> None:
    share = theory.memory_factor(alpha, gamma)
    assert share * theory.expected_tokens(alpha, gamma) == pytest.approx(1.0, rel=1e-15)
    assert 1 / (gamma + 1) <= share <= 1


@given(alpha=unit, gamma=lengths, low=costs, high=costs)
def test_a_dearer_draft_is_never_faster(alpha: float, gamma: int, low: float, high: float) -> None:
    assume(low <= high)
    cheap, dear = (theory.walltime_factor(alpha, gamma, cost) for cost in (low, high))
    assert dear <= cheap


# --- the choice of gamma --------------------------------------------------------------------


@given(alpha=unit, cost_ratio=costs, max_gamma=st.integers(0, 32))
def test_no_draft_length_beats_the_optimal_one(
    alpha: float, cost_ratio: float, max_gamma: int
) -> None:
    speeds = [theory.walltime_factor(alpha, g, cost_ratio) for g in range(max_gamma + 1)]
    chosen = theory.optimal_gamma(alpha, cost_ratio, max_gamma)
    assert speeds[chosen] == pytest.approx(max(speeds), rel=1e-13)
    assert all(speed < speeds[chosen] * (1 + 1e-13) for speed in speeds[:chosen])


@given(alpha=unit, cost_ratio=costs)
def test_corollary_3_9_a_draft_pays_exactly_when_alpha_exceeds_its_cost(
    alpha: float, cost_ratio: float
) -> None:
    assert (theory.optimal_gamma(alpha, cost_ratio) > 0) == theory.does_pay(alpha, cost_ratio)


@given(alpha=unit, cost_ratio=costs)
def test_corollary_3_9_above_its_cost_a_draft_gains_at_least_the_guaranteed_factor(
    alpha: float, cost_ratio: float
) -> None:
    assume(alpha > cost_ratio + 1e-9)
    best = theory.walltime_factor(alpha, theory.optimal_gamma(alpha, cost_ratio), cost_ratio)
    guaranteed = theory.guaranteed_factor(alpha, cost_ratio)
    assert guaranteed > 1
    assert best >= guaranteed * (1 - 1e-14)
    assert theory.walltime_factor(alpha, 1, cost_ratio) == pytest.approx(guaranteed, rel=1e-14)


@given(alpha=unit, cost_ratio=costs, gamma=lengths)
def test_corollary_3_9_up_to_its_cost_no_draft_length_gains(
    alpha: float, cost_ratio: float, gamma: int
) -> None:
    assume(alpha <= cost_ratio)
    assert not theory.does_pay(alpha, cost_ratio)
    assert theory.walltime_factor(alpha, gamma, cost_ratio) <= 1 + 1e-14


@given(alpha=unit)
def test_a_tie_with_plain_decoding_is_not_worth_a_draft(alpha: float) -> None:
    assert not theory.does_pay(alpha, alpha)
    assert theory.optimal_gamma(alpha, alpha) == 0
    assert theory.guaranteed_factor(alpha, alpha) == 1


def test_a_free_draft_that_may_be_kept_is_as_long_as_allowed() -> None:
    assert theory.optimal_gamma(0.5, 0.0) == 32
    assert theory.optimal_gamma(0.5, 0.0, max_gamma=5) == 5
    assert theory.optimal_gamma(0.5, 0.0, max_gamma=0) == 0


@given(low=unit, high=unit, cost_ratio=costs)
def test_a_better_draft_is_never_made_shorter(low: float, high: float, cost_ratio: float) -> None:
    assume(low + 1e-6 <= high)
    worse, better = (theory.optimal_gamma(alpha, cost_ratio) for alpha in (low, high))
    assert worse <= better


# --- the oracle -----------------------------------------------------------------------------


@given(alpha=unit, cost_ratio=costs, gamma=lengths)
def test_no_fixed_draft_length_beats_the_oracle(
    alpha: float, cost_ratio: float, gamma: int
) -> None:
    bound = theory.oracle_factor(alpha, cost_ratio)
    assert theory.walltime_factor(alpha, gamma, cost_ratio) <= bound * (1 + 1e-13)
    assert theory.oracle_gain(alpha, cost_ratio) >= -1e-13


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_an_oracle_with_a_free_draft_reaches_the_end_of_figure_2(alpha: float) -> None:
    bound = theory.oracle_factor(alpha, 0.0)
    assert bound == pytest.approx(theory.expected_tokens(alpha, math.inf), rel=1e-15)


def test_an_oracle_with_a_perfect_free_draft_has_no_bound() -> None:
    assert theory.oracle_factor(1.0, 0.0) == math.inf
    assert theory.oracle_gain(1.0, 0.0) == math.inf


def test_an_oracle_leaves_a_draft_alone_that_costs_more_than_the_target() -> None:
    assert theory.oracle_factor(0.9, 5.0) == pytest.approx(1.0)


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    refusal = rf"^alpha must be between 0 and 1, got {alpha!r}$"
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.expected_tokens(alpha, 4)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.walltime_factor(alpha, 4, 0.1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.operations_factor(alpha, 4, 0.1)
    for function in (
        theory.optimal_gamma,
        theory.does_pay,
        theory.guaranteed_factor,
        theory.oracle_factor,
        theory.oracle_gain,
    ):
        with pytest.raises(InvalidRequestError, match=refusal):
            function(alpha, 0.1)


@pytest.mark.parametrize("cost_ratio", [-0.1, math.nan, math.inf])
def test_a_cost_that_is_no_ratio_is_refused(cost_ratio: float) -> None:
    refusal = rf"^cost_ratio must be 0 or more and finite, got {cost_ratio!r}$"
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.walltime_factor(0.5, 4, cost_ratio)
    for function in (
        theory.optimal_gamma,
        theory.does_pay,
        theory.guaranteed_factor,
        theory.oracle_factor,
        theory.oracle_gain,
    ):
        with pytest.raises(InvalidRequestError, match=refusal):
            function(0.5, cost_ratio)
    with pytest.raises(InvalidRequestError, match=r"^operations_ratio must be"):
        theory.operations_factor(0.5, 4, cost_ratio)


def test_a_negative_gamma_is_refused() -> None:
    refusal = "^gamma must be a whole number, 0 or more, got -1$"
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.expected_tokens(0.5, -1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.walltime_factor(0.5, -1, 0.1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.operations_factor(0.5, -1, 0.1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.chen_loop_time(-1, 1.8, 14.1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.chen_efficiency(1.0, -1)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.measured_walltime_factor(1.0, -1, 0.1, 1.0)
    with pytest.raises(InvalidRequestError, match=r"^max_gamma must be"):
        theory.optimal_gamma(0.5, 0.1, max_gamma=-1)


@pytest.mark.parametrize("gamma", [2.5, 4.0, -math.inf, math.nan])
def test_a_gamma_that_is_no_whole_number_is_refused(gamma: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"^gamma must be a whole number"):
        theory.expected_tokens(0.5, gamma)
    with pytest.raises(InvalidRequestError, match=r"^gamma must be a whole number"):
        theory.memory_factor(0.5, gamma)


@pytest.mark.parametrize("num_tokens", [-1.0, 5.5, math.nan, math.inf])
def test_more_tokens_than_a_round_can_yield_are_refused(num_tokens: float) -> None:
    refusal = r"^num_tokens must be between 0 and gamma \+ 1 = 5, got"
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.chen_efficiency(num_tokens, 4)
    with pytest.raises(InvalidRequestError, match=refusal):
        theory.measured_walltime_factor(num_tokens, 4, 0.1, 1.0)


@pytest.mark.parametrize("name", ["draft_cost", "verify_cost", "overhead"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_measured_cost_that_is_no_time_is_refused(name: str, value: float) -> None:
    costs = {"draft_cost": 0.1, "verify_cost": 1.0, "overhead": 0.0, name: value}
    with pytest.raises(InvalidRequestError, match=f"^{name} must be 0 or more and finite"):
        theory.measured_walltime_factor(3.0, 4, **costs)


def test_a_check_that_takes_no_time_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"^verify_cost must be above 0"):
        theory.measured_walltime_factor(3.0, 4, 0.1, 0.0)


@pytest.mark.parametrize(("draft_ms", "target_ms"), [(-1.0, 14.1), (1.8, math.nan)])
def test_a_loop_of_no_time_is_refused(draft_ms: float, target_ms: float) -> None:
    with pytest.raises(InvalidRequestError, match="_ms must be 0 or more and finite"):
        theory.chen_loop_time(4, draft_ms, target_ms)


# --- the module -----------------------------------------------------------------------------


def test_the_theory_is_importable_without_torch() -> None:
    script = "import sys; sys.modules['torch'] = None; import draftsmith.core.theory"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_sorted_and_true() -> None:
    assert theory.__all__ == sorted(theory.__all__)
    assert all(callable(getattr(theory, name)) for name in theory.__all__)
