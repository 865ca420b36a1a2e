"""A replayed drafter against the engine's own rounds."""

import pytest
import torch

from draftsmith import Engine, SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters import Drafter, FreeDrafter, ModelDrafter, PromptLookupDrafter
from draftsmith.drafters.branching import branching
from draftsmith.engine.replay import (
    Replayed,
    Text,
    Told,
    guesses,
    read,
    rounds,
    rounds_by_law,
    rounds_from_guesses,
)
from draftsmith.engine.requests.request import make_request
from draftsmith.models.contract import LanguageModel, Rows
from tests.drafters.heads import test_engine as heads
from tests.drafters.heads.kinds import MADE
from tests.engine.kit import DRAFTERS, PROMPTS, target
from tests.engine.test_grown_trees import another
from tests.engine.test_trees import native

SEED = 11


def _texts(params: SamplingParams, model: LanguageModel) -> list[Text]:
    results = Engine(model).generate(PROMPTS, params)
    return [
        Text(make_request(prompt, params, model.traits, None), SEED, result.token_ids)
        for prompt, result in zip(PROMPTS, results, strict=True)
    ]


def _told(params: SamplingParams, model: LanguageModel, drafter: Drafter) -> list[Told]:
    return [read(model, one, drafter.boundaries) for one in _texts(params, model)]


def _counted(found: list[Replayed]) -> SpeculationStatistics:
    return SpeculationStatistics.from_rounds(one.record for one in found)


@pytest.mark.parametrize("gamma", [1, 3, 5])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("drafter", ["model", "bigram", "random"])
def test_guesses_foretell_the_engines_rounds(drafter: str, temperature: float, gamma: int) -> None:
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=SEED)
    engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=gamma)
    own = DRAFTERS[drafter]("llama")
    for prompt, told in zip(PROMPTS, _told(params, target("llama"), own), strict=True):
        found = guesses(target("llama"), own, told)
        records = rounds_from_guesses([guess.is_right for guess in found], gamma, told.text.room)
        counted = SpeculationStatistics.from_rounds(records)
        (result,) = engine.generate([prompt], params)
        assert result.statistics == counted


@pytest.mark.parametrize("gamma", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_deterministic_drafter_is_replayed_round_by_round(temperature: float, gamma: int) -> None:
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=SEED)
    drafter = PromptLookupDrafter(min_ngram=1)
    engine = Engine(target("llama"), draft=PromptLookupDrafter(min_ngram=1), gamma=gamma)
    told = _told(params, target("llama"), drafter)
    for prompt, one in zip(PROMPTS, rounds(target("llama"), drafter, told, gamma), strict=True):
        (result,) = engine.generate([prompt], params)
        assert result.statistics == _counted(one)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    ("kind", "gamma", "branches"),
    [
        ("head", 3, 1),
        ("head", 6, 3),
        ("model", 3, 1),
        ("model", 6, 3),
        ("head on a GPU", 3, 1),
        ("medusa", 3, 1),
        ("medusa", 6, 3),
        ("p-eagle", 3, 1),
        ("p-eagle", 6, 3),
    ],
)
def test_heads_and_trees_are_replayed_round_by_round(
    kind: str, gamma: int, branches: int, temperature: float
) -> None:
    model = native()
    made: Drafter | None = ModelDrafter(another()) if kind == "model" else None
    if made is None:
        model = heads.target("gpu" if kind == "head on a GPU" else "plain")
        made = MADE[kind](model, 1) if kind in MADE else heads.drafter(model)
    drafter = branching(made, branches)
    params = SamplingParams(max_tokens=14, temperature=temperature, seed=SEED)
    engine = Engine(model, draft=drafter, gamma=gamma)
    replayed = rounds(model, drafter, _told(params, model, drafter), gamma)
    for prompt, one in zip(PROMPTS, replayed, strict=True):
        (result,) = engine.generate([prompt], params)
        assert result.statistics == _counted(one)
        assert all(len(each.children) == each.record.num_accepted for each in one)
    found = {number for one in replayed for each in one for number in each.children}
    assert kind != "model" or (found == {0} if branches == 1 else found > {0})


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_drafter_that_learns_hears_what_it_hears_in_a_run(temperature: float) -> None:
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=SEED)
    model = native()
    engine = Engine(model, draft=FreeDrafter(), gamma=4, prefix_caching=False)
    replayed = rounds(model, FreeDrafter(), _told(params, model, FreeDrafter()), 4)
    for prompt, one in zip(PROMPTS, replayed, strict=True):
        (result,) = engine.generate([prompt], params)
        assert result.statistics == _counted(one)
    assert sum(_counted(one).num_accepted for one in replayed)


def test_by_the_laws_a_draft_is_kept_with_the_chance_of_their_overlap() -> None:
    model = target("llama")
    params = SamplingParams(max_tokens=12, temperature=0.9, seed=SEED, verifier="rejection")
    told = _told(params, model, DRAFTERS["model"]("llama"))
    same = rounds_by_law(model, DRAFTERS["self"]("llama"), told, 3, lambda: 1 - 1e-4)
    assert all(one.record.num_accepted == one.record.num_drafted for text in same for one in text)
    # Where the chances are those of guesses, each asked for by itself, the rounds are theirs.
    draws = [iter([0.3, 0.8, 0.55, 0.9, 0.1] * 40) for _ in range(2)]
    twin = DRAFTERS["model"]("llama")
    found = rounds_by_law(model, twin, told, 3, lambda: next(draws[0]))
    for text, one in zip(told, found, strict=True):
        overlaps = [guess.overlap for guess in guesses(model, twin, text)]
        start = 0
        for each in one:
            ahead = overlaps[start : start + each.record.num_drafted]
            wrong = (i for i, chance in enumerate(ahead) if next(draws[1]) >= chance)
            kept = next(wrong, len(ahead))
            assert each.record.num_accepted == kept
            start += each.record.num_committed


def test_the_overlap_is_that_of_the_two_laws() -> None:
    model = target("llama")
    params = SamplingParams(max_tokens=12, temperature=0.9, seed=SEED)
    told = _told(params, model, DRAFTERS["self"]("llama"))[0]
    text = told.text
    same = guesses(model, DRAFTERS["self"]("llama"), told)
    assert [guess.overlap for guess in same] == pytest.approx([1.0] * 12, abs=1e-5)
    assert all(guess.is_right for guess in same)
    ids = torch.tensor([[*PROMPTS[0], *text.output]])
    cache = model.open_cache()
    row = cache.add()
    logits = model.forward(cache, Rows([row], [ids[0].tolist()]))[0]
    laws = torch.softmax(logits.double() / 0.9, dim=-1)
    uniform = torch.full_like(laws[0], 1 / laws.shape[-1])
    found = guesses(model, DRAFTERS["random"]("llama"), told)
    for number, guess in enumerate(found):
        law = laws[len(PROMPTS[0]) - 1 + number]
        assert guess.overlap == pytest.approx(float(torch.minimum(law, uniform).sum()), abs=1e-4)
