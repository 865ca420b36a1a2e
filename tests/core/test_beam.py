"""One step of beam search: order, ties, ends."""

import pytest
import torch

from draftsmith.core.beam import Beam, BeamRules, BeamState, advance, best_continuations
from draftsmith.errors import InvalidRequestError, NumericsError

LAW = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
ROOT = (Beam((), 0.0),)


def test_continuations_come_best_first() -> None:
    assert [beam.tokens for beam in best_continuations(ROOT, LAW, 3)] == [(0,), (1,), (2,)]


def test_scores_add_up_over_beams() -> None:
    beams = [Beam((5,), -1.0), Beam((6,), -1.2)]
    found = best_continuations(beams, LAW.expand(2, -1), 3)
    assert [beam.tokens for beam in found] == [(5, 0), (6, 0), (5, 1)]
    assert found[1].score == pytest.approx(-1.2 + float(LAW[0, 0]))


def test_ties_go_to_the_earlier_beam_then_to_the_lower_id() -> None:
    law = torch.tensor([[0.25] * 4]).log().expand(3, -1)
    beams = [Beam((5,), -1.0), Beam((6,), -1.0), Beam((7,), -1.0)]
    found = [beam.tokens for beam in best_continuations(beams, law, 6)]
    assert found == [(5, 0), (5, 1), (5, 2), (5, 3), (6, 0), (6, 1)]


def test_what_is_impossible_does_not_go_on() -> None:
    law = torch.tensor([[0.5, 0.0, 0.5, 0.0]]).log()
    assert [beam.tokens for beam in best_continuations(ROOT, law, 4)] == [(0,), (2,)]


def test_an_end_among_the_best_is_finished_with_its_mean() -> None:
    state = BeamState((Beam((2,), -1.0), Beam((3,), -1.1)))
    state = advance(state, LAW.expand(2, -1), BeamRules(2, 9, frozenset([0])))
    assert [beam.tokens for beam in state.finished] == [(2, 0), (3, 0)]
    assert state.finished[0].score == pytest.approx((-1.0 + float(LAW[0, 0])) / 2)
    # Below the two best, an end is dropped; both beams go on by what does not end.
    state = advance(BeamState(ROOT), LAW, BeamRules(2, 9, frozenset([2])))
    assert state.finished == ()
    assert [beam.tokens for beam in state.live] == [(0,), (1,)]


def test_enough_beams_go_on_even_if_all_the_best_end() -> None:
    state = advance(BeamState(ROOT), LAW, BeamRules(2, 9, frozenset([0, 1])))
    assert [beam.tokens for beam in state.finished] == [(0,), (1,)]


def test_the_search_is_over_when_no_beam_can_overtake() -> None:
    state = BeamState((Beam((2,), -9.0),), (Beam((0,), -0.1),))
    assert advance(state, LAW, BeamRules(1, 9, frozenset([3]))).live == ()
    state = BeamState((Beam((2,), -0.1),), (Beam((0,), -0.9),))
    assert advance(state, LAW, BeamRules(1, 9, frozenset([3]))).live != ()


def test_the_last_token_finishes_every_beam() -> None:
    state = advance(BeamState(ROOT), LAW, BeamRules(2, 1, frozenset()))
    assert state.live == ()
    assert [beam.tokens for beam in state.finished] == [(0,), (1,)]


def test_a_row_without_mass_is_refused() -> None:
    with pytest.raises(NumericsError, match="no token has a probability"):
        advance(BeamState(ROOT), torch.full((1, 4), -torch.inf), BeamRules(2, 9, frozenset()))


@pytest.mark.parametrize("changes", [{"num_beams": 0}, {"max_tokens": 0}])
def test_a_rule_out_of_range_is_refused(changes: dict[str, int]) -> None:
    numbers = {"num_beams": 2, "max_tokens": 3} | changes
    with pytest.raises(InvalidRequestError, match="must be 1 or more"):
        BeamRules(numbers["num_beams"], numbers["max_tokens"], frozenset())
