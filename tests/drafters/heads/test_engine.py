"""Heads in an engine: the text is plain decoding's, and the head is told what it needs."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import DraftContext
from draftsmith.drafters.heads import HeadConfig, HeadDrafter, HeadWeights
from draftsmith.drafters.heads.drafter import HeadState
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.eagle3_kind import Eagle3
from draftsmith.drafters.heads.plain import PlainHead, causal
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.trial import try_head
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel, Rows
from tests import tiny
from tests.drafters.heads import kinds, kit
from tests.engine.kit import PROMPTS, texts
from tests.models.native.test_cpu import fast, plain
from tests.models.native.test_gpu import fast_and_plain

MODES = {
    "greedy": SamplingParams(max_tokens=24, ignore_eos=True),
    "coupled": SamplingParams(max_tokens=24, temperature=0.9, seed=3, ignore_eos=True),
}


@cache
def target(kind: str) -> LanguageModel:
    if kind == "gpu":
        return fast_and_plain("llama, wide heads")[0]
    found = plain("llama") if kind == "plain" else fast("llama")
    if not found.num_boundaries:
        pytest.skip("hands out no states")
    return found


def made_for(model: LanguageModel) -> tuple[HeadConfig, HeadWeights]:
    tables = tables_of(model)
    config = kit.config(
        boundaries=(0, 1, 2),
        target_hidden_size=tables.hidden_size,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    return config, kit.weights(config)


def drafter(model: LanguageModel) -> HeadDrafter:
    tables = tables_of(model)
    return HeadDrafter(EagleHead(*made_for(model), tables, model.device, None), "head")


@pytest.mark.parametrize("kind", ["plain", "fast", "gpu"])
@pytest.mark.parametrize("gamma", [1, 4, "auto"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("head", kinds.MADE)
def test_the_text_is_that_of_plain_decoding(kind: str, gamma: int, mode: str, head: str) -> None:
    model, params = target(kind), MODES[mode]
    wanted = texts(Engine(model).generate(PROMPTS, params))
    drafted = Engine(model, draft=kinds.MADE[head](model, 1), gamma=gamma)
    assert texts(drafted.generate(PROMPTS, params)) == wanted


@pytest.mark.parametrize("kind", ["fast", "gpu"])
def test_penalties_look_at_the_text_in_rounds_with_and_without_a_draft(kind: str) -> None:
    model, params = target(kind), SamplingParams(max_tokens=9, repetition_penalty=1.3)
    found = Engine(model, draft=drafter(model), gamma=3).generate(PROMPTS, params)
    assert texts(found) == texts(Engine(model).generate(PROMPTS, params))


@pytest.mark.parametrize("head", kinds.MADE)
def test_the_text_is_that_of_plain_decoding_under_penalties(head: str) -> None:
    """The prefix that they look at outlives the round."""
    model, params = target("fast"), replace(MODES["coupled"], frequency_penalty=0.5)
    wanted = texts(Engine(model).generate(PROMPTS, params))
    drafted = Engine(model, draft=kinds.MADE[head](model, 1), gamma=3)
    assert texts(drafted.generate(PROMPTS, params)) == wanted


@pytest.mark.parametrize("verifier", ["rejection", "block"])
@pytest.mark.parametrize("head", kinds.MADE)
def test_the_other_verifiers_take_its_laws(verifier: str, head: str) -> None:
    model = target("plain")
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=1, verifier=verifier)
    draft = kinds.MADE[head](model, 1)
    results = Engine(model, draft=draft, gamma=3).generate(PROMPTS, params)
    assert sum(one.completions[0].statistics.num_drafted for one in results) > 24


class Watched(HeadDrafter):
    """Compares each draft's first logits with the plain twin's over the target's own states."""

    def __init__(self, model: LanguageModel) -> None:
        config, weights = made_for(model)
        super().__init__(EagleHead(config, weights, tables_of(model), model.device, None))
        self.twin = PlainHead(config, weights.tensors)
        self.model = model
        self.num_seen = 0

    def open(self) -> HeadState:
        return _Watching(self)

    def wanted(self, tokens: list[int]) -> Tensor:
        own = self.model.open_cache()
        rows = Rows([own.add()], [tokens[:-1]])
        boundaries = self.twin.config.boundaries
        _, states = self.model.forward_with_states(own, rows, boundaries)
        embedded = tables_of(self.model).embed(tokens[1:]).unsqueeze(0)
        positions = torch.arange(len(tokens) - 1)
        stream = self.twin.run(embedded, self.twin.feature(states), positions, causal)
        return self.twin.logits(stream)[0, -1]


class _Watching(HeadState):
    def __init__(self, drafter: Watched) -> None:
        super().__init__(drafter.head)
        self.drafter = drafter

    def propose(self, context: DraftContext) -> object:  # type: ignore[override]
        draw, seen = context.draw, set[int]()

        def watched(rows: list[int], logits: Tensor) -> list[int]:
            for row, line in zip(rows, logits, strict=True):
                if row not in seen:
                    wanted = self.drafter.wanted(list(context.sequences[row].tokens))
                    torch.testing.assert_close(line, wanted, rtol=1e-3, atol=1e-3)
                    self.drafter.num_seen += 1
            seen.update(rows)
            return draw(rows, logits)

        context.draw = watched  # type: ignore[method-assign]
        return super().propose(context)


@pytest.mark.parametrize("kind", ["plain", "fast", "gpu"])
def test_in_every_round_it_goes_on_from_the_targets_own_states(kind: str) -> None:
    model = target(kind)
    watched = Watched(model)
    Engine(model, draft=watched, gamma=3).generate(PROMPTS, MODES["coupled"])
    assert watched.num_seen > 60


def test_trees_are_refused_where_the_target_checks_chains_only() -> None:
    model = target("gpu")
    with pytest.raises(InvalidRequestError, match=r"branches=2 needs .* checks chains only"):
        Engine(model, draft=drafter(model).with_branches(2))


def test_a_trial_with_the_decoder_of_a_gpu_says_what_it_says_with_the_plain_one() -> None:
    fast, plain = fast_and_plain("llama, wide heads")
    found, wanted = (try_head(Eagle3(*made_for(model)), model) for model in (fast, plain))
    assert found == wanted
    assert found.num_tokens > 200


def test_a_target_behind_the_adapter_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="only a native decoder"):
        tables_of(tiny.model("gpt2"))
