"""What drafts are worth, learnt from some whose chances are known."""

import random

import pytest

from draftsmith.engine.control.chances import (
    HOPELESS,
    PLACES,
    ByConfidence,
    ByPosition,
    Chances,
    Gain,
)


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


def test_nothing_is_drafted_behind_a_hopeless_token() -> None:
    """What is left out could have added less than that to the tokens of a round."""
    confidence = taught(0.0, 1.0, 300)
    row = confidence.along(0, [0.01] * 8)
    assert 1 <= len(row) < 8
    assert row[-1] < HOPELESS
    assert all(chance >= HOPELESS for chance in row[:-1])
    found = confidence.along(0, [0.9])
    confidence.extend(found, 0, [0.8, 0.7])
    assert found == pytest.approx(confidence.along(0, [0.9, 0.8, 0.7]))


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


def test_places_of_a_draft_are_told_apart() -> None:
    """The first token is kept in 9 of 10 drafts, the second in 4 of 10 of those."""
    chance, places = random.Random(1), Chances(ByPosition())
    for text in range(600):
        first, second = chance.random() < 0.9, chance.random() < 0.4
        num_accepted = int(first) + int(first and second)
        places.observe(text, PLACES[: min(2, num_accepted + 1)], num_accepted)
        places.retain([text])
        places.fade(1)
    kept = places.along(-1, PLACES[:2])
    assert kept == pytest.approx([0.9, 0.36], abs=0.06)


def test_a_place_that_was_hardly_tested_takes_the_average() -> None:
    places = Chances(ByPosition())
    for _ in range(50):
        places.observe(0, PLACES[:1], 1)
    first, *_, last = (places.along(1, PLACES[at : at + 1])[0] for at in range(32))
    assert first > last > 0.9
    assert last == pytest.approx(places.usual(1))


def test_what_was_seen_ages_by_rounds() -> None:
    """One step of so many rounds is as many steps of one."""
    at_once, one_by_one = (taught(-1.0, 1.5, 80) for _ in range(2))
    at_once.fade(300)
    for _ in range(300):
        one_by_one.fade(1)
    assert at_once.along(1, [0.7]) == pytest.approx(one_by_one.along(1, [0.7]), abs=0.05)
    assert at_once.usual(1) == pytest.approx(one_by_one.usual(1))


def test_a_gain_is_hoped_for_until_it_is_known_and_saved_when_it_is_proven() -> None:
    gain = Gain()
    assert gain.expected([0]) > 0
    assert gain.saving == 0.0
    assert not gain.is_known
    for _ in range(20):
        gain.observe(0, 1, 1.4)
    assert gain.expected([0]) < gain.expected([1]) < 0
    assert gain.saving == 0.0
    for _ in range(60):
        gain.observe(1, 4, 2.0)
    assert 0 < gain.expected([0]) < 0.2 * gain.expected([1])
    assert 0.3 < gain.saving < 0.5
    gain.retain([1])
    assert gain.expected([0]) == gain.expected([2])
