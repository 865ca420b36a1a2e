"""A predicted output is followed as far as it goes, and found again behind an edit."""

from collections.abc import Sequence

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, SequenceView
from draftsmith.drafters.prediction import PredictionDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.testing import check_drafter
from tests.drafters.test_prompt_lookup import Round
from tests.engine.kit import PROMPTS, target

_TEXT = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


def _after(output: Sequence[int], drafter: Drafter, gamma: int = 3) -> list[int]:
    """What is drafted after an output that came token by token."""
    state = drafter.open()
    found: list[int] = []
    for length in range(len(output) + 1):
        view = SequenceView(0, [50, 51, *output[:length]], 2, (), gamma)
        draft = state.propose(Round([view]))
        assert draft.confidences is not None
        assert len(draft.confidences[0]) == int(draft.num_drafted[0])
        found = draft.tokens[0, : int(draft.num_drafted[0])].tolist()
    return found


def test_it_keeps_the_contract() -> None:
    check_drafter(PredictionDrafter(_TEXT), vocab_size=16, num_draws=64)


@pytest.mark.parametrize(
    ("output", "drafted"),
    [
        ([], [5, 6, 7]),
        ([5, 6], [7, 8, 9]),
        ([5, 6, 99], []),  # parted
        ([5, 6, 99, 8], []),  # one token is no match
        ([5, 6, 99, 8, 9], [10, 11, 12]),  # found again behind an edit
        ([5, 6, 98, 99, 7, 8], [9, 10, 11]),  # behind an insertion
        ([5, 9, 10], [11, 12, 13]),  # behind a deletion
        (_TEXT[:9], [14]),
        (_TEXT, []),
        ([*_TEXT, 99], []),
        ([*_TEXT, 99, 5, 6], [7, 8, 9]),
    ],
)
def test_what_is_drafted_after_each_output(output: list[int], drafted: list[int]) -> None:
    assert _after(output, PredictionDrafter(_TEXT)) == drafted


def test_of_equal_matches_the_first_behind_the_parting_counts() -> None:
    text = [1, 2, 30, 4, 5, 1, 2, 31, 4, 5, 1, 2, 32]
    drafter = PredictionDrafter(text)
    assert _after([1, 2, 30, 4, 5, 77, 1, 2], drafter, gamma=1) == [31]
    assert _after([1, 2, 77, 1, 2], drafter, gamma=1) == [30]


def test_a_right_prediction_is_kept_whole() -> None:
    params = SamplingParams(seed=3, max_tokens=40, ignore_eos=True)
    plain = Engine(target("llama")).generate(PROMPTS[:1], params)[0]
    drafter = PredictionDrafter(plain.token_ids)
    found = Engine(target("llama"), draft=drafter, gamma=9).generate(PROMPTS[:1], params)[0]
    assert found.token_ids == plain.token_ids
    assert found.statistics.num_rounds == 4
    assert found.statistics.num_drafted == found.statistics.num_accepted == 36


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="tokens must be token ids"):
        PredictionDrafter([-1])
    with pytest.raises(InvalidRequestError, match="min_match must be 1 or more"):
        PredictionDrafter([1], min_match=0)
