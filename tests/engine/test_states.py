"""Hidden states: a drafter is handed the streams of every committed token, once and in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Draft, DraftContext, RandomDrafter
from draftsmith.drafters.contract import DraftState, StatefulDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.states import StateLog
from tests import tiny
from tests.engine.kit import PROMPTS, texts
from tests.models.native.test_cpu import fast, plain

BOUNDARIES = (0, 1, 2)
MODES = {
    "greedy": SamplingParams(max_tokens=12),
    "seeded": SamplingParams(max_tokens=12, temperature=1.0, seed=3),
}


@cache
def model(kind: str) -> LanguageModel:
    found = fast("llama") if kind == "fast" else plain("llama")
    if not found.num_boundaries:
        pytest.skip("hands out no states")
    return found


@cache
def expected(text: tuple[int, ...]) -> Tensor:
    """The streams of a whole text, read at once."""
    twin = plain("llama")
    own = twin.open_cache()
    return twin.forward_with_states(own, Rows([own.add()], [list(text)]), BOUNDARIES)[1][0]


class Reading(StatefulDrafter):
    """Reads states, checks each against the plain twin's, and drafts chains or trees."""

    boundaries = BOUNDARIES

    def __init__(self, *, draws_trees: bool = False, skips: int = 0) -> None:
        self.draws_trees, self.skips = draws_trees, skips
        self.num_read = 0
        self.worst = 0.0

    def open(self) -> DraftState:
        return _Reads(self)


@dataclass
class _Reads(DraftState):
    drafter: Reading
    read: dict[int, int] = field(default_factory=dict[int, int])
    num_rounds: int = 0

    def propose(self, context: DraftContext) -> Draft:
        self.num_rounds += 1
        source = torch.Generator().manual_seed(self.num_rounds)
        tokens: list[list[int]] = []
        for row, view in enumerate(context.sequences):
            if self.num_rounds % (1 + self.drafter.skips) == 0:
                self._check(context.states(row), view.id, view.tokens)
            # Sometimes right: a copy of what was said, or chance.
            guess = torch.randint(2, tiny.VOCAB, (view.gamma,), generator=source).tolist()
            tokens.append(guess)
        if not self.drafter.draws_trees:
            return Draft.certain(tokens, context.device)
        parents = [[(node + 1) // 3 - 1 for node in range(len(row))] for row in tokens]
        return Draft.certain(tokens, context.device, parents=parents)

    def _check(self, states: Tensor, id: int, text: Sequence[int]) -> None:
        start = self.read.get(id, 0)
        assert start + len(states) == len(text) - 1, "all that is settled, but the newest"
        wanted = expected(tuple(text[:-1]))[start:] if len(text) > 1 else states
        if len(states):
            self.drafter.worst = max(self.drafter.worst, float((states - wanted).abs().max()))
        self.drafter.num_read += len(states)
        self.read[id] = len(text) - 1

    def release(self, sequence: int) -> None:
        self.read.pop(sequence, None)


@pytest.mark.parametrize("skips", [0, 2])
@pytest.mark.parametrize("draws_trees", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_every_token_is_handed_out_once(
    kind: str, mode: str, draws_trees: bool, skips: int
) -> None:
    draft = Reading(draws_trees=draws_trees, skips=skips)
    engine = Engine(model(kind), draft=draft, gamma=5)
    for _ in range(2):
        results = engine.generate(PROMPTS, MODES[mode])
        assert texts(results) == texts(Engine(model(kind)).generate(PROMPTS, MODES[mode]))
    assert draft.num_read > sum(map(len, PROMPTS))
    assert draft.worst < 1e-3


@pytest.mark.long
def test_sequences_that_make_way_are_not_told_of_twice() -> None:
    params = replace(MODES["seeded"], max_tokens=120, ignore_eos=True)
    prompts = [[5 + first, 6, 7] for first in range(4)]
    draft = Reading()
    engine = Engine(model("fast"), draft=draft, gamma=3, cache_tokens=320)
    results = engine.generate(prompts, params)
    assert engine.scheduler.cache_statistics().num_preemptions > 0
    assert texts(results) == texts(Engine(model("fast")).generate(prompts, params))
    assert draft.worst < 1e-3


def test_a_shifted_stream_would_be_seen() -> None:
    """The check of these tests is one: streams of the neighbour are far off."""
    states = expected(tuple(PROMPTS[2]))
    assert float((states[1:] - states[:-1]).abs().amax(dim=(0, 2)).min()) > 0.01


def test_who_hands_out_nothing_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="hands out only"):
        Engine(tiny.model("gpt2", 1), draft=Reading(), gamma=2)


def test_a_boundary_beyond_the_layers_is_named() -> None:
    draft = Reading()
    draft.boundaries = (1, 9)
    with pytest.raises(InvalidRequestError, match=r"boundary 9, but .* layers"):
        Engine(model("plain"), draft=draft, gamma=2)


def test_without_a_reader_nothing_is_kept() -> None:
    engine = Engine(model("plain"), draft=RandomDrafter(tiny.VOCAB), gamma=2)
    engine.generate(PROMPTS, MODES["greedy"])
    assert not engine.scheduler._caches.target.hands_out  # pyright: ignore[reportPrivateUsage]


def test_a_log_forgets_what_was_rolled_back() -> None:
    log = StateLog((0,))
    streams = torch.arange(8.0).view(8, 1, 1)
    log.note(1, 0, streams[:4])
    assert log.take(1, 2).flatten().tolist() == [0, 1]
    log.cut(1, 3)
    log.note(1, 3, 10 + streams[:3])
    log.keep(1, 3, [0, 2])
    assert log.take(1, 9).flatten().tolist() == [2, 10, 12]
    # Read once more from the start, as after a preemption.
    log.note(1, 0, 20 + streams[:7])
    assert log.take(1, 9).flatten().tolist() == [25, 26]
    log.release(1)
    assert not len(log.take(1, 9))


def test_a_log_passes_over_what_went_another_way_and_keeps_nothing_behind_a_gap() -> None:
    log = StateLog((0,))
    states = torch.arange(12.0).view(12, 1, 1)
    log.note(1, 0, states[:6])
    log.pass_over(1, 4)
    assert log.take(1, 6).flatten().tolist() == [4, 5]
    log.pass_over(1, 8)
    assert log.stop(1) == 8
    log.note(1, 9, states[9:])
    assert log.stop(1) == 8
    log.note(1, 8, states[8:])
    assert log.take(1, 12).flatten().tolist() == [8, 9, 10, 11]


def test_a_log_lets_go_of_the_oldest_texts_beyond_its_limit() -> None:
    log = StateLog((0,))
    states = torch.arange(6.0).view(6, 1, 1)
    for sequence in (1, 2):
        log.note(sequence, 0, states)
    log.take(1, 2)
    log.limit(8)
    assert (log.stop(1), log.stop(2)) == (2, 6)
    log.note(1, 2, states[2:])
    assert log.take(1, 6).flatten().tolist() == [2, 3, 4, 5]
