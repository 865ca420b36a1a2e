"""What rounds cost, learnt from times that are known."""

import math
import random

import pytest

from draftsmith.engine.control.costs import CheckCost, DraftCost, Load

ONE = Load(1)


def test_one_slow_check_is_not_the_reason_that_there_is_never_a_second() -> None:
    costs = CheckCost()
    for _ in range(4):
        costs.observe_plain(ONE, 0.020)
        costs.observe(ONE, 4, 0.022)
    costs.observe(ONE, 5, 0.060)
    assert costs.seconds(ONE, 5) < 0.03
    for _ in range(6):
        costs.observe(ONE, 5, 0.060)
    assert costs.seconds(ONE, 5) > 0.050


def test_sizes_far_from_each_other_are_told_apart_and_near_ones_are_not() -> None:
    costs = CheckCost()
    for rows in (1, 2, 40, 41, 80) * 4:
        if rows == 1:
            costs.observe_plain(ONE, 0.01)
        else:
            costs.observe(ONE, rows, 0.01 * rows)
    assert costs.seconds(ONE, 1) == pytest.approx(0.01, rel=0.05)
    assert costs.seconds(ONE, 2) == pytest.approx(0.02, rel=0.05)
    assert costs.seconds(ONE, 40) == pytest.approx(0.40, rel=0.05)
    assert costs.seconds(ONE, 80) == pytest.approx(0.80, rel=0.05)


def test_a_few_unseen_tokens_are_read_in_a_step_and_a_prompt_is_not() -> None:
    costs = DraftCost()
    costs.observe(2, 400, 0.420)
    for _ in range(4):
        costs.observe(4, 4, 0.040)
    assert costs.step_s(0.02) == pytest.approx(0.010)
    # The two steps behind the prompt are known by now.
    assert costs.catch_up_s(400, 0.02) == pytest.approx(0.400)


def line_s(held: float, speed: float = 1.0) -> float:
    """A plain round that takes twice as long with 2,000 tokens held."""
    return speed * 0.017 * (1 + held / 2000)


def test_a_jump_of_the_context_tells_what_a_held_token_costs() -> None:
    costs = CheckCost()
    for start in (20, 4000):
        for held in range(start, start + 40):
            costs.observe_plain(Load(1, float(held)), line_s(held))
    for held in (20.0, 1000.0, 4000.0, 8000.0):
        assert costs.plain_s(Load(1, held)) == pytest.approx(line_s(held), rel=0.01)


def test_a_slow_machine_is_not_taken_for_a_long_context() -> None:
    costs = CheckCost()
    for held in range(20, 420):
        costs.observe_plain(Load(1, float(held)), 0.017 * (2.0 if held > 200 else 1.0))
    assert costs.plain_s(Load(1, 420.0)) == pytest.approx(0.034, rel=0.02)
    assert costs.plain_s(Load(1, 4000.0)) == pytest.approx(0.034, rel=0.05)


def test_checks_tell_of_plain_rounds_in_every_context() -> None:
    """Checks of 5 rows alone, in long and short texts in turn, while the machine slows down."""
    costs = CheckCost()
    for start in (20, 4000) * 3:
        for held in range(start, start + 40):
            costs.observe_plain(Load(1, float(held)), line_s(held))
            costs.observe(Load(1, float(held)), 5, 1.3 * line_s(held))
    for held in range(4000, 4100):
        costs.observe(Load(1, float(held)), 5, 1.3 * line_s(held, speed=1.2))
    assert costs.plain_s(Load(1, 4100.0)) == pytest.approx(line_s(4100, 1.2), rel=0.03)
    assert costs.plain_s(ONE) == pytest.approx(line_s(0, 1.2), rel=0.03)


def test_of_a_check_the_surprise_is_told_at_once() -> None:
    costs = CheckCost()
    for _ in range(8):
        costs.observe_plain(ONE, 0.020)
        assert costs.observe(ONE, 4, 0.022) == pytest.approx(1.0)
    assert costs.observe(ONE, 4, 0.024) == pytest.approx(24 / 22)


def test_a_context_farther_than_any_jump_is_far() -> None:
    costs = CheckCost()
    costs.observe_plain(Load(1, 100.0), 0.017)
    assert not costs.is_far(Load(1, 300.0))
    assert costs.is_far(Load(1, 4000.0))
    costs.observe_plain(Load(1, 4000.0), 0.051)
    assert not costs.is_far(Load(1, 3000.0))


def test_a_rest_is_learnt_as_its_rounds_are_one_by_one() -> None:
    chance, one_by_one, at_once = random.Random(2), CheckCost(), CheckCost()
    for start in range(0, 960, 32):
        taken = [line_s(start + at) * chance.uniform(0.97, 1.03) for at in range(32)]
        for at, seconds in enumerate(taken):
            one_by_one.observe_plain(Load(1, float(start + at)), seconds)
        at_once.observe_plain(Load(1, start + 15.5), sum(taken) / 32, 32)
        here = Load(1, start + 31.0)
        assert at_once.plain_s(here) == pytest.approx(one_by_one.plain_s(here), rel=0.02)
    assert at_once.num_plain(1) == one_by_one.num_plain(1)


def test_the_noise_of_plain_rounds_is_known() -> None:
    chance, steady, noisy = random.Random(1), CheckCost(), CheckCost()
    for _ in range(100):
        steady.observe_plain(ONE, 0.02)
        noisy.observe_plain(ONE, 0.02 * chance.uniform(0.8, 1.25))
    assert noisy.noise == pytest.approx(0.11, abs=0.04)
    assert steady.noise < 0.03
    # Of rests whose level moves, what each knows of its rounds is believed.
    for number in range(40):
        steady.observe_plain(ONE, 0.02 * (1 + 0.1 * (number % 2)), 32, noise=0.01)
    assert steady.noise < 0.02


def test_a_size_that_was_checked_often_bounds_smaller_ones_in_every_context() -> None:
    """A pause in a check of few rows, or behind the 128th token, is none of the draft's."""
    cost = CheckCost()
    cost.observe_plain(Load(1, 50.0), 1.0, 8)
    for _ in range(3):
        cost.observe(Load(1, 60.0), 5, 1.4)
    assert cost.trusted_s(Load(1, 60.0), 5) == math.inf
    cost.observe(Load(1, 60.0), 5, 1.4)
    for held in (60.0, 130.0, 3000.0):
        for rows in (2, 3, 5):
            assert cost.trusted_s(Load(1, held), rows) == pytest.approx(1.4, rel=0.05)
        assert cost.trusted_s(Load(1, held), 6) == math.inf


@pytest.mark.parametrize("seed", range(3))
def test_a_machine_that_becomes_faster_makes_no_check_cheaper_than_a_plain_round(
    seed: int,
) -> None:
    """Else drafts would seem to win that are never right."""
    chance, cost = random.Random(seed), CheckCost()
    cost.observe_plain(Load(1, 50.0), 1.0, 8)
    for number in range(60):
        # Two more rows take 10 % of a pass, which takes 25 % less from now on.
        seconds = 0.75 * 1.1 * math.exp(chance.gauss(0, 0.03))
        usual_s = cost.plain_s(Load(1, 60.0))
        booked_s = usual_s * cost.observe(Load(1, 60.0), 3, seconds)
        if number > 5:
            assert booked_s < 1.1 * seconds
    assert cost.plain_s(Load(1, 60.0)) < 0.86
    assert cost.seconds(Load(1, 60.0), 3) == pytest.approx(0.75 * 1.1, rel=0.05)
