"""A drafter that speculates itself: its noise is apart at every level, in every inner round."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from draftsmith.core.noise import RoundNoise, Stream
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine import hierarchical
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.sequence import Sequence
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.engine.rounds.turn import Turn
from tests.engine.kit import PROMPTS, Ramp, target, twin

Call = tuple[int, int, int]


def sequence(verifier: str = "block", seed: int = 3) -> Sequence:
    params = SamplingParams(temperature=1.5, seed=seed, verifier=verifier)
    request = make_request(PROMPTS[0], params, target("llama").traits, None)
    return request.sequence(0, seed, torch.device("cpu"), None)


def calls_of(drafter: Drafter, gamma: int, one: Sequence) -> tuple[list[Call], Turn]:
    """(level, inner round, tokens ahead) of every round within one round, and that one."""
    turn = one.turn(gamma)
    calls: list[Call] = [(turn.level, turn.inner_round, len(turn.prefix))]

    class Recorded(Turn):
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            calls.append((self.level, self.inner_round, len(self.prefix)))

    context = RoundContext([turn], target("llama").traits.vocab_size, torch.device("cpu"))
    with mock.patch.object(hierarchical, "Turn", Recorded):
        draft = drafter.propose(context)
    assert draft.num_drafted.tolist() == [gamma]
    return calls, turn


def noise(one: Sequence, level: int = 0, inner_round: int = 0, num_ahead: int = 0) -> RoundNoise:
    turn = replace(one.turn(0), level=level, inner_round=inner_round, prefix=[0] * num_ahead)
    return turn.noise


def two_levels() -> Drafter:
    return SpeculativeDrafter(twin("llama"), Ramp(), inner_gamma=3)


def three_levels() -> Drafter:
    return SpeculativeDrafter(target("llama"), two_levels(), inner_gamma=4)


@pytest.mark.parametrize(("make", "depth"), [(two_levels, 1), (three_levels, 2)])
def test_no_two_rounds_of_any_level_share_their_noise(
    make: Callable[[], Drafter], depth: int
) -> None:
    for seed in range(5):
        calls, _ = calls_of(make(), 7, sequence(seed=seed))
        keys = [(level, inner_round) for level, inner_round, _ in calls]
        assert len(set(keys)) == len(keys) > depth + 1
        assert {level for level, _ in keys} == set(range(depth + 1))


def test_the_numbers_of_every_level_and_inner_round_are_apart() -> None:
    one = sequence()
    keys = list(itertools.product((0, 1, 2), (0, 1, 2, 31, 32, 33)))
    streams = (Stream.DRAFT, Stream.ACCEPT, Stream.EMIT)
    numbers = [
        number
        for (level, inner_round), stream in itertools.product(keys, streams)
        for number in noise(one, level, inner_round).uniforms(stream, 3)[0].tolist()
    ]
    assert len(set(numbers)) == len(numbers)


def test_an_inner_round_takes_its_coupled_noise_at_its_own_position() -> None:
    one = sequence("coupled")
    top = noise(one).exponentials(0, 5, 20)
    for ahead in range(5):
        inner = noise(one, 1, 0, ahead).exponentials(0, 5 - ahead, 20)
        assert torch.equal(inner, top[:, ahead:])


def test_an_inner_round_begins_where_the_draft_so_far_ends() -> None:
    calls, turn = calls_of(two_levels(), 6, sequence("coupled"))
    assert [ahead for level, _, ahead in calls if level == 0] == [0]
    inner = [ahead for level, _, ahead in calls if level == 1]
    assert inner[0] == 0
    assert inner == sorted(set(inner))
    assert max(inner) < len(turn.drawn) == 6


def test_a_middle_drafter_that_is_right_needs_no_round_twice() -> None:
    # The middle is the very model above it, so all of its drafts are kept: 4 + 1 and 1 + 1 tokens.
    one = sequence("coupled")
    middle = SpeculativeDrafter(target("llama"), Ramp(), inner_gamma=2)
    calls, _ = calls_of(SpeculativeDrafter(target("llama"), middle, inner_gamma=4), 7, one)
    assert [call for call in calls if call[0] == 1] == [(1, 0, 0), (1, 1, 5)]
    assert min(ahead for level, number, ahead in calls if level == 2 and number >= 32) == 5


def test_its_tokens_and_laws_are_those_of_its_model() -> None:
    # Coupled: what the model over its inner drafter draws is what the model alone would draw.
    for inner in (Ramp(), PromptLookupDrafter(1), ModelDrafter(target("llama"))):
        _, over = calls_of(SpeculativeDrafter(twin("llama"), inner), 6, sequence("coupled"))
        _, alone = calls_of(ModelDrafter(twin("llama")), 6, sequence("coupled"))
        assert over.drawn == alone.drawn


def test_its_laws_are_its_models_at_every_token() -> None:
    _, over = calls_of(two_levels(), 6, sequence("block"))
    one = sequence("block")
    _, alone = calls_of(ModelDrafter(twin("llama")), 1, one)
    torch.testing.assert_close(over.laws[0], alone.laws[0], rtol=1e-3, atol=1e-5)
    one.tokens.append(over.drawn[0])
    _, after = calls_of(ModelDrafter(twin("llama")), 1, one)
    torch.testing.assert_close(over.laws[1], after.laws[0], rtol=1e-3, atol=1e-5)
    assert len(over.laws) == len(over.drawn) == 6
