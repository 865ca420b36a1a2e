"""The books: every round is in the ledger at once, and shared out before anybody reads it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from draftsmith.engine.control.account import Account
from draftsmith.engine.control.books import Books, Rest
from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample
from draftsmith.engine.control.fixed import FixedGamma

LINE = Ledger(1.0, 0.75, 0.25, 0.125, 1, 1)


def test_a_rest_is_in_the_ledger_before_and_after_it_is_entered() -> None:
    """A round that reads a prompt is in the ledger, and in no mean; what is owed comes once."""
    books = Books()
    books.enter(LINE)
    books.owed = 2.0
    books.rested.append((True, 0.25, 4.0, 0.125, 3.0))
    whole = LINE + Ledger(4.0, 3.875, 0.25, 0.125, 1, 1)
    assert books.ledger == whole
    assert books.end_rest() == Rest(1)
    assert books.ledger == whole
    books.rested.append((False, 0.25, 1.0, 0.125, 0.0))
    books.rested.append((False, 0.25, 2.0, 0.25, 0.125))
    whole += Ledger(1.0, 0.875 + 2 * 0.875, 0.25, 0.125, 1, 1) + Ledger(2.0, 1.75, 0.25, 0.25, 1, 1)
    assert books.num_rounds == 2
    assert books.ledger == whole
    # 0.875 and 1.625 are no neighbours: the machine has paused.
    noise = 0.5 / math.sqrt(2)
    assert books.end_rest() == Rest(2, 2, (3.0 - 0.375 - 0.125) / 2, 0.375 / 2, noise)
    assert books.num_rounds == 4
    assert books.ledger == whole
    assert books.end_rest() == Rest()
    assert books.ledger == whole


def test_a_level_that_moves_is_no_noise() -> None:
    """A machine that slows down by a third within a rest; and one whose rounds stray by 5 %."""
    chance = random.Random(3)
    for stray, expected in ((0.0, 0.001), (0.05, 0.04)):
        books = Books()
        for number in range(320):
            round_s = (1 + number / 960) * math.exp(chance.gauss(0, stray))
            books.rested.append((False, 0.0, round_s, 0.0, 0.0))
        noise = books.end_rest().noise
        assert noise is not None
        assert noise == pytest.approx(expected, abs=0.005)
    books.rested.append((False, 0.0, 1.0, 0.0, 0.0))
    assert books.end_rest().noise is None


def test_a_round_of_several_is_shared_whole() -> None:
    shares = [LINE.share(4) for _ in range(4)]
    whole = sum(shares, Ledger())
    assert (whole.spent_s, whole.plain_s, whole.own_s) == (1.0, 0.75, 0.125)
    assert LINE.share(1) == LINE
    assert LINE.to_dict()["own_s"] == 0.125
    assert LINE + LINE - LINE == LINE


@dataclass
class Text:
    """Who has a share."""

    ledger: Ledger | None = None


class Counting:
    """A controller whose ledger is written by hand."""

    def __init__(self) -> None:
        self.ledger = Ledger(8.0, 8.0, 0.0, 0.0, 8, 8)

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        return Choice([0] * len(sequences))

    def observe(self, report: RoundReport) -> None:
        self.ledger += LINE


def test_what_is_shared_out_late_is_what_every_round_would_have_shared() -> None:
    """Texts come and go; whose round was whose is told by line, added round by round."""
    controller, texts = Counting(), [Text() for _ in range(4)]
    account, truth = Account(controller), [Ledger() for _ in range(4)]
    batches = [[0], [0], [0, 1], [0, 1], [1, 2, 3], [1, 2, 3], [2], [2], [0, 2]]
    for number, batch in enumerate(batches):
        account.begin([texts[one] for one in batch])
        line = Ledger(1.0 + number, 0.5, 0.25, 0.125, 1, number % 2)
        controller.ledger += line
        for one in batch:
            truth[one] += line.share(len(batch))
        if number == 5:
            account.settle()
            assert texts[3].ledger == pytest.approx(truth[3])
    account.settle()
    account.settle()
    for text, true in zip(texts, truth, strict=True):
        assert text.ledger == pytest.approx(true)


def test_who_keeps_no_ledger_shares_none_out() -> None:
    text = Text()
    account = Account(FixedGamma(3))
    account.begin([text])
    account.settle()
    assert text.ledger is None
