"""The books: every line is in the ledger at once, and entered when its rest ends."""

from draftsmith.engine.control.books import Books, Rest
from draftsmith.engine.control.contract import Ledger

LINE = Ledger(1.0, 0.75, 0.25, 0.125, 1, 1)


def test_a_rest_is_in_the_ledger_before_and_after_it_is_entered() -> None:
    books = Books()
    books.enter(LINE)
    books.rested += [(LINE, 0.0), (LINE, 0.25)]
    assert books.num_rounds == 1
    assert books.ledger == LINE + LINE + LINE
    assert books.end_rest() == Rest(2, 0.75, 0.125)
    assert books.num_rounds == 3
    assert books.ledger == LINE + LINE + LINE
    assert books.end_rest() == Rest()


def test_a_round_of_several_is_shared_whole() -> None:
    shares = [LINE.share(4) for _ in range(4)]
    whole = sum(shares, Ledger())
    assert (whole.spent_s, whole.plain_s, whole.own_s) == (1.0, 0.75, 0.125)
    assert LINE.share(1) == LINE
    assert LINE.to_dict()["own_s"] == 0.125
