"""A pause is forgiven once, a price never: whatever comes first."""

from draftsmith.engine.control.doubt import Doubt


def test_a_long_check_behind_which_others_are_short_was_a_pause() -> None:
    doubt = Doubt()
    assert doubt.paused_s(4, 3.0) == 3.0
    assert doubt.paused_s(2, 0.0) == 0.0, "fewer rows tell nothing of it"
    assert doubt.paused_s(4, 0.0) == 0.0
    assert doubt.paused_s(5, 2.0) == 2.0, "it is over: the next size has the benefit, too"


def test_a_check_that_is_long_again_was_its_price() -> None:
    doubt = Doubt()
    found = [doubt.paused_s(rows, 3.0) for rows in (4, 4, 4, 4)]
    assert found == [3.0, -3.0, 0.0, 0.0]
    assert sum(found) == 0


def test_sizes_that_all_are_dear_are_charged_in_the_end() -> None:
    doubt = Doubt()
    found = [doubt.paused_s(rows, 3.0) for rows in (2, 3, 4, 2, 3, 4, 5)]
    assert sum(found) <= 3.0
    assert doubt.paused_s(2, 3.0) + sum(found) <= 3.0
