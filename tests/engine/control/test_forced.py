"""What a grammar forces is no merit of the drafter, and a round with it is no plain one."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Forced, RoundReport, without

PLAIN_S, ROW_S = 0.02, 0.001


@dataclass
class Text:
    """As much of a sequence as a controller sees."""

    id: int
    tokens: list[int]
    room: int


counts = st.integers(0, 6)


@given(before=counts, guessed=counts, behind=counts, kept=st.integers(0, 18))
def test_what_is_left_of_a_record_is_that_of_the_guesses(
    before: int, guessed: int, behind: int, kept: int
) -> None:
    total = before + guessed + behind
    kept = min(kept, total)
    record = RoundRecord(total, min(kept + 1, total), kept, kept + 1)
    left = without(record, Forced(before, behind))
    kept_guesses = min(max(0, kept - before), guessed)
    assert left.num_drafted == guessed
    assert left.num_accepted == kept_guesses
    assert left.num_tested == min(kept_guesses + (kept >= before), guessed)
    assert left.num_committed == kept_guesses + 1
    assert without(record, Forced()) == record


def test_a_round_with_forced_tokens_is_not_taken_for_a_plain_one() -> None:
    """Every third round commits five forced tokens, whose rows take their time."""
    auto, sequence, tokens = AutoGamma(), Text(0, [1] * 9, 100_000), 0
    for number in range(400):
        choice = auto.choose([sequence])
        guessed, num_forced = choice.gammas[0], 5 * (number % 3 == 1)
        record = RoundRecord(
            guessed + num_forced, num_forced + min(1, guessed), num_forced, num_forced + 1
        )
        total_s = PLAIN_S + ROW_S * (guessed + num_forced)
        report = RoundReport(
            [sequence],
            choice.gammas,
            [record],
            [[0.3] * guessed],
            False,
            0.0,
            total_s,
            0.0,
            0.0,
            [Forced(before=num_forced)],
        )
        auto.observe(report)
        sequence.tokens += [1] * record.num_committed
        tokens += record.num_committed
    # Plain decoding takes a round for each token, whoever knew it beforehand.
    assert auto.ledger.plain_s == pytest.approx(PLAIN_S * tokens, rel=0.02)
    assert auto.ledger.num_plain_rounds < 280
