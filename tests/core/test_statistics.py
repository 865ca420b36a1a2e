import json
import math
import random
from functools import reduce
from itertools import pairwise
from operator import add

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from draftsmith.core import statistics
from draftsmith.core.statistics import Interval, RoundRecord, SpeculationStatistics
from draftsmith.errors import InvalidRequestError

REJECTED_AT_2 = RoundRecord(num_drafted=4, num_tested=3, num_accepted=2, num_committed=3)
KEPT_WHOLE = RoundRecord(num_drafted=4, num_tested=4, num_accepted=4, num_committed=5)
REJECTED_AT_0 = RoundRecord(num_drafted=2, num_tested=1, num_accepted=0, num_committed=1)
PLAIN = RoundRecord(num_drafted=0, num_tested=0, num_accepted=0, num_committed=1)
ENDED_INSIDE = RoundRecord(num_drafted=4, num_tested=2, num_accepted=2, num_committed=2)
HAND_MADE = [REJECTED_AT_2, KEPT_WHOLE, REJECTED_AT_0, PLAIN, ENDED_INSIDE]


@st.composite
def round_records(draw: st.DrawFn) -> RoundRecord:
    drafted = draw(st.integers(0, 6))
    tested = draw(st.integers(0, drafted))
    accepted = draw(st.integers(max(0, tested - 1), tested))
    return RoundRecord(drafted, tested, accepted, draw(st.integers(0, accepted + 1)))


runs = st.lists(round_records(), max_size=12)


# --- known answers --------------------------------------------------------------------------


def test_the_hand_made_rounds_are_counted() -> None:
    counts = SpeculationStatistics.from_rounds(HAND_MADE)
    assert counts.num_rounds == 5
    assert counts.num_drafting_rounds == 4
    assert counts.num_drafted == 14
    assert counts.num_tested == 10
    assert counts.num_accepted == 8
    assert counts.num_committed == 12
    assert counts.drafted_per_position == (4, 4, 3, 3)
    assert counts.tested_per_position == (4, 3, 2, 1)
    assert counts.accepted_per_position == (3, 3, 1, 1)
    assert counts.accepted_histogram == (2, 0, 2, 0, 1)


def test_the_hand_made_rounds_have_these_ratios() -> None:
    counts = SpeculationStatistics.from_rounds(HAND_MADE)
    assert counts.alpha == 8 / 10
    assert counts.draft_yield == 8 / 14
    assert counts.tokens_per_pass == 12 / 5
    assert counts.mean_acceptance_length == 1 + 8 / 4
    assert counts.acceptance_per_position == (3 / 4, 3 / 3, 1 / 2, 1 / 1)
    assert counts.acceptance_per_position_unconditional == (3 / 4, 3 / 4, 1 / 4, 1 / 4)
    assert counts.chen_efficiency == 12 / (14 + 5)


def test_drafts_after_a_rejection_do_not_lower_alpha() -> None:
    counts = SpeculationStatistics.from_rounds([RoundRecord(8, 2, 1, 2)])
    assert counts.alpha == 1 / 2
    assert counts.draft_yield == 1 / 8


def test_an_end_of_sequence_inside_the_kept_draft_is_no_rejection() -> None:
    counts = SpeculationStatistics.from_rounds([ENDED_INSIDE])
    assert counts.alpha == 1
    assert counts.draft_yield == 1 / 2
    assert counts.tokens_per_pass == 2


def test_plain_decoding_has_no_acceptance_and_full_efficiency() -> None:
    counts = SpeculationStatistics.from_rounds([PLAIN, PLAIN])
    assert counts.alpha is None
    assert counts.draft_yield is None
    assert counts.mean_acceptance_length is None
    assert counts.alpha_interval() is None
    assert counts.tokens_per_pass == 1
    assert counts.chen_efficiency == 1
    assert counts.accepted_histogram == (2,)
    assert counts.acceptance_per_position_unconditional == ()


def test_no_rounds_have_no_ratios() -> None:
    counts = SpeculationStatistics.from_rounds([])
    assert counts == SpeculationStatistics()
    assert counts.tokens_per_pass is None
    assert counts.chen_efficiency is None
    assert counts.accepted_histogram == (0,)


def test_a_draft_that_was_never_tested_has_a_yield_but_no_alpha() -> None:
    counts = SpeculationStatistics.from_rounds([RoundRecord(3, 0, 0, 0)])
    assert counts.alpha is None
    assert counts.draft_yield == 0
    assert counts.acceptance_per_position == (None, None, None)
    assert counts.acceptance_per_position_unconditional == (0, 0, 0)


def test_rounds_of_plain_decoding_do_not_dilute_vllms_ratios() -> None:
    alone = SpeculationStatistics.from_rounds([REJECTED_AT_2])
    mixed = SpeculationStatistics.from_rounds([REJECTED_AT_2, PLAIN, PLAIN])
    assert mixed.mean_acceptance_length == alone.mean_acceptance_length == 3
    assert mixed.acceptance_per_position_unconditional == (1, 1, 0, 0)


def test_runs_of_unequal_draft_length_add() -> None:
    long, short = ([KEPT_WHOLE], [REJECTED_AT_0])
    total = SpeculationStatistics.from_rounds(long) + SpeculationStatistics.from_rounds(short)
    assert total.drafted_per_position == (2, 2, 1, 1)
    assert total.accepted_histogram == (1, 0, 0, 0, 1)


# --- properties -----------------------------------------------------------------------------


@given(parts=st.lists(runs, max_size=4))
def test_the_sum_of_parts_is_the_statistics_of_the_whole(parts: list[list[RoundRecord]]) -> None:
    summed = reduce(add, map(SpeculationStatistics.from_rounds, parts), SpeculationStatistics())
    whole = SpeculationStatistics.from_rounds([record for part in parts for record in part])
    assert summed == whole


@given(records=runs)
def test_the_totals_are_the_sums_of_the_records(records: list[RoundRecord]) -> None:
    counts = SpeculationStatistics.from_rounds(records)
    totals = (counts.num_drafted, counts.num_tested, counts.num_accepted, counts.num_committed)
    assert totals == tuple(sum(record[i] for record in records) for i in range(4))


@given(records=runs)
def test_the_histogram_counts_every_round_once(records: list[RoundRecord]) -> None:
    histogram = SpeculationStatistics.from_rounds(records).accepted_histogram
    kept = [record.num_accepted for record in records]
    assert histogram == tuple(kept.count(n) for n in range(len(histogram)))
    assert sum(histogram) == len(records)


@given(records=runs)
def test_alpha_is_never_below_the_draft_yield(records: list[RoundRecord]) -> None:
    counts = SpeculationStatistics.from_rounds(records)
    assume(counts.num_tested > 0)
    assert counts.alpha is not None
    assert counts.draft_yield is not None
    assert 0 <= counts.draft_yield <= counts.alpha <= 1


@given(records=runs)
def test_later_positions_are_never_reached_more_often(records: list[RoundRecord]) -> None:
    counts = SpeculationStatistics.from_rounds(records)
    for per_position in (
        counts.drafted_per_position,
        counts.tested_per_position,
        counts.accepted_per_position,
        counts.acceptance_per_position_unconditional,
    ):
        assert all(here >= beyond for here, beyond in pairwise(per_position))


@given(records=runs)
def test_the_rates_per_position_multiply_to_the_unconditional_ones(
    records: list[RoundRecord],
) -> None:
    fully_tested = [r for r in records if r.num_drafted > 0 and r.num_tested > r.num_accepted]
    counts = SpeculationStatistics.from_rounds(
        [RoundRecord(6, r.num_tested, r.num_accepted, 0) for r in fully_tested]
    )
    product = 1.0
    rates = zip(
        counts.acceptance_per_position, counts.acceptance_per_position_unconditional, strict=True
    )
    for conditional, unconditional in rates:
        product *= conditional or 0.0
        assert unconditional == pytest.approx(product)


@given(records=runs)
def test_the_mean_acceptance_length_is_one_plus_the_unconditional_rates(
    records: list[RoundRecord],
) -> None:
    counts = SpeculationStatistics.from_rounds(records)
    assume(counts.num_drafting_rounds > 0)
    expected = 1 + sum(counts.acceptance_per_position_unconditional)
    assert counts.mean_acceptance_length == pytest.approx(expected)


@given(records=runs)
def test_the_efficiency_is_a_share(records: list[RoundRecord]) -> None:
    efficiency = SpeculationStatistics.from_rounds(records).chen_efficiency
    assert efficiency is None or 0 <= efficiency <= 1


# --- the interval ---------------------------------------------------------------------------


def run_of(num_accepted: int, num_tested: int) -> SpeculationStatistics:
    kept, lost = RoundRecord(1, 1, 1, 2), RoundRecord(1, 1, 0, 1)
    rounds = [kept] * num_accepted + [lost] * (num_tested - num_accepted)
    return SpeculationStatistics.from_rounds(rounds)


@pytest.mark.parametrize(
    ("num_accepted", "num_tested", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(
    num_accepted: int, num_tested: int, low: float, high: float
) -> None:
    interval = run_of(num_accepted, num_tested).alpha_interval()
    assert interval == pytest.approx((low, high), abs=5e-5)


@given(num_tested=st.integers(1, 60), data=st.data(), confidence=st.floats(0.001, 0.999999))
def test_the_interval_holds_alpha_and_solves_the_score_equation(
    num_tested: int, data: st.DataObject, confidence: float
) -> None:
    run = run_of(data.draw(st.integers(0, num_tested)), num_tested)
    interval = run.alpha_interval(confidence)
    assert interval is not None
    assert run.alpha is not None
    assert 0 <= interval.low <= run.alpha <= interval.high <= 1
    for end in interval:
        # At an end of the interval alpha lies z standard errors of that end away.
        z_squared = (run.alpha - end) ** 2 * num_tested
        z = math.sqrt(2) * erf_inverse(confidence)
        assert z_squared == pytest.approx(z * z * end * (1 - end), abs=1e-9)


def erf_inverse(value: float) -> float:
    """By bisection of math.erf, to be independent of the code under test."""
    low, high = 0.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return low


def test_more_confidence_or_fewer_tests_widen_the_interval() -> None:
    def width(run: SpeculationStatistics, confidence: float) -> float:
        interval = run.alpha_interval(confidence)
        assert interval is not None
        return interval.high - interval.low

    assert width(run_of(8, 10), 0.99) > width(run_of(8, 10), 0.95) > width(run_of(80, 100), 0.95)


def test_the_interval_survives_the_greatest_confidence_below_one() -> None:
    interval = run_of(1, 2).alpha_interval(math.nextafter(1.0, 0.0))
    assert interval is not None
    assert 0 < interval.low < 0.5 < interval.high < 1


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"^confidence must be above 0 and below 1, got"):
        run_of(1, 2).alpha_interval(confidence)


# --- the dictionary -------------------------------------------------------------------------


@given(records=runs)
def test_the_dictionary_is_json_and_agrees_with_the_properties(records: list[RoundRecord]) -> None:
    counts = SpeculationStatistics.from_rounds(records)
    values = counts.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)).keys() == values.keys()
    aliases = {"draft_acceptance_rate": counts.draft_yield}
    for name, value in values.items():
        assert value == (aliases[name] if name in aliases else getattr(counts, name))


def test_the_dictionary_has_our_names_and_vllms() -> None:
    values = SpeculationStatistics.from_rounds(HAND_MADE).to_dict()
    assert values["alpha"] == 8 / 10
    assert values["draft_yield"] == values["draft_acceptance_rate"] == 8 / 14
    assert values["tokens_per_pass"] == 12 / 5
    assert values["mean_acceptance_length"] == 3
    public = {name for name in dir(SpeculationStatistics) if not name.startswith("_")}
    assert public - values.keys() == {"from_rounds", "alpha_interval", "to_dict"}


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (RoundRecord(4, 5, 4, 5), "accepted <= tested <= drafted"),
        (RoundRecord(4, 2, 3, 3), "accepted <= tested <= drafted"),
        (RoundRecord(-1, -1, -1, 0), "accepted <= tested <= drafted"),
        (RoundRecord(4, 4, 2, 3), "at most one draft it rejects"),
        (RoundRecord(4, 3, 2, 4), "commits 0 to num_accepted"),
        (RoundRecord(4, 3, 2, -1), "commits 0 to num_accepted"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(record: RoundRecord, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refusal:
        SpeculationStatistics.from_rounds([KEPT_WHOLE, record])
    assert str(record) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "counts",
    [
        (-1, 0, (), (), ()),
        (1, 2, (), (), ()),
        (1, -1, (), (), ()),
        (1, 1, (2,), (1,), (1,)),
        (2, 2, (1, 2), (1, 1), (1, 1)),
        (2, 2, (1,), (2,), (1,)),
        (2, 2, (2,), (1,), (2,)),
        (2, 2, (2, 2), (2, 2), (1, 1)),
        (2, 2, (2,), (0,), (-1,)),
        (2, 2, (2, 2), (1,), (1,)),
    ],
)
def test_counts_that_no_rounds_can_have_are_refused(
    counts: tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    with pytest.raises(InvalidRequestError, match="counts"):
        SpeculationStatistics(*counts)


def test_the_order_of_rounds_does_not_matter() -> None:
    shuffled = random.Random(0).sample(HAND_MADE, len(HAND_MADE))
    assert SpeculationStatistics.from_rounds(shuffled) == SpeculationStatistics.from_rounds(
        HAND_MADE
    )


def test_the_public_names_are_sorted_and_true() -> None:
    assert statistics.__all__ == sorted(statistics.__all__)
    assert all(hasattr(statistics, name) for name in statistics.__all__)
    assert Interval(0.1, 0.2).low == 0.1
