"""What a confidence is worth, learnt from drafts whose chances are known."""

import random

import pytest

from draftsmith.engine.control.chances import ByConfidence, Chances


def logistic(log_odds: float) -> float:
    return 1 / (1 + 2.718281828459045**-log_odds)


def untaught() -> Chances:
    return Chances(ByConfidence())


def taught(offset: float, slope: float, num_drafts: int, sequence: int = 0) -> Chances:
    """One that has seen drafts whose chance is a line of the confidence's log-odds."""
    chance, confidence = random.Random(1), untaught()
    for _ in range(num_drafts):
        log_odds = [chance.uniform(-2, 4) for _ in range(5)]
        hits = [chance.random() < logistic(offset + slope * one) for one in log_odds]
        num_accepted = hits.index(False) if False in hits else 5
        tested = log_odds[: num_accepted + 1]
        confidence.observe(sequence, [logistic(one) for one in tested], num_accepted)
        confidence.fade(1)
    return confidence


def test_a_confidence_is_taken_at_its_word_at_first() -> None:
    assert untaught().along(0, [0.5, 0.9]) == pytest.approx([0.5, 0.45], abs=0.02)


@pytest.mark.parametrize(("offset", "slope"), [(0.0, 1.0), (-1.5, 2.0), (1.0, 0.5)])
def test_a_line_is_found(offset: float, slope: float) -> None:
    confidence = taught(offset, slope, 1200)
    for log_odds in (-1.0, 0.0, 1.0, 2.0, 3.0):
        found = confidence.along(1, [logistic(log_odds)])[0]
        assert found == pytest.approx(logistic(offset + slope * log_odds), abs=0.08)


def test_chances_fall_along_a_draft_and_rise_with_confidence() -> None:
    confidence = taught(-1.0, 1.5, 50)
    row = confidence.along(0, [0.9, 0.2, 0.99])
    assert row[0] > row[1] > row[2] > 0
    singles = [confidence.along(0, [sure])[0] for sure in (0.0, 0.3, 0.6, 0.9, 0.999, 1.0)]
    assert singles == sorted(singles)
    assert 0 < singles[0] < singles[-1] < 1
    assert len(confidence.along(0, [])) == 0


def test_a_text_of_its_own_kind_shifts_its_own_chances_only() -> None:
    confidence = taught(0.0, 1.0, 300)
    before = confidence.along(7, [0.8])[0]
    for _ in range(40):
        confidence.observe(7, [0.8], 0)
        confidence.fade(1)
    assert confidence.along(7, [0.8])[0] < 0.5 * before
    assert confidence.usual(7) < confidence.usual(8)
    assert confidence.along(8, [0.8])[0] > 0.7 * before
    confidence.retain([8])
    assert confidence.along(7, [0.8])[0] == confidence.along(8, [0.8])[0]


def test_it_is_known_whether_a_drafter_tells_any() -> None:
    confidence = untaught()
    confidence.observe(0, [], 0)
    assert not confidence.is_known
    confidence.observe(0, [0.5], 1)
    assert confidence.is_known


def test_a_shift_is_none_without_tests_and_where_all_is_as_expected() -> None:
    confidence = untaught()
    assert confidence.shift(0) == 0.0
    for number in range(400):
        confidence.observe(0, [0.5], number % 2)
        confidence.fade(1)
    assert confidence.shift(0) == pytest.approx(0.0, abs=0.1)
    for _ in range(50):
        confidence.observe(0, [0.5], 1)
    assert confidence.shift(0) > 0.5
