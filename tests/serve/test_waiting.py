"""When a place is free again, foretold from what texts have taken."""

from draftsmith.core.params import SamplingParams
from draftsmith.engine.scheduler import Ticket
from draftsmith.serve.waiting import Waiting
from tests.serve import live


def _ticket(max_tokens: int, done: int, started_at: float | None) -> Ticket:
    """A text that has so many tokens."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    [sample] = live.engine(gamma=0).prepare([5, 6], params).samples
    for _ in range(done):
        sample.commit_round([7])
    ticket = Ticket(sample, is_followed=True)
    ticket.started_at = started_at
    return ticket


def test_a_place_is_free_when_the_text_that_is_nearest_its_end_has_ended() -> None:
    waiting = Waiting()
    # A second a token, and 100 tokens each.
    waiting.note_end(_ticket(100, 100, 0.0), 100.0)
    texts = [_ticket(200, 10, 0.0), _ticket(200, 90, 0.0), _ticket(40, 10, 0.0)]
    assert waiting.seconds(texts, 1) == 10
    assert waiting.seconds(texts, 2) == 30
    assert waiting.seconds(texts, 3) == 90


def test_those_who_wait_behind_a_whole_batch_wait_for_its_texts_too() -> None:
    waiting = Waiting()
    waiting.note_end(_ticket(100, 100, 0.0), 100.0)
    texts = [_ticket(200, 90, 0.0), _ticket(200, 50, None)]
    assert waiting.seconds(texts, 2) == 110


def test_a_text_that_is_longer_than_usual_is_expected_to_go_on_to_its_end() -> None:
    waiting = Waiting()
    waiting.note_end(_ticket(50, 50, 0.0), 50.0)
    assert waiting.seconds([_ticket(200, 60, 0.0)], 1) == 140


def test_there_is_always_a_second_to_wait() -> None:
    assert Waiting().seconds([], 1) == 1
    assert Waiting().seconds([_ticket(5, 4, None)], 1) == 1
