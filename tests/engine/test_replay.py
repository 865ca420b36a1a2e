"""A replayed drafter against the engine's own rounds."""

import pytest
import torch

from draftsmith import Engine, SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.replay import Text, guesses, rounds, rounds_from_guesses
from draftsmith.engine.requests.request import make_request
from draftsmith.models.contract import Rows
from tests.engine.kit import DRAFTERS, PROMPTS, target

SEED = 11


def _texts(params: SamplingParams) -> list[Text]:
    model = target("llama")
    results = Engine(model).generate(PROMPTS, params)
    return [
        Text(make_request(prompt, params, model.traits, None), SEED, result.token_ids)
        for prompt, result in zip(PROMPTS, results, strict=True)
    ]


@pytest.mark.parametrize("gamma", [1, 3, 5])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("drafter", ["model", "bigram", "random"])
def test_guesses_foretell_the_engines_rounds(drafter: str, temperature: float, gamma: int) -> None:
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=SEED)
    engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=gamma)
    for prompt, text in zip(PROMPTS, _texts(params), strict=True):
        found = guesses(target("llama"), DRAFTERS[drafter]("llama"), text)
        records = rounds_from_guesses([guess.is_right for guess in found], gamma, text.room)
        counted = SpeculationStatistics.from_rounds(records)
        (result,) = engine.generate([prompt], params)
        assert result.statistics == counted


@pytest.mark.parametrize("gamma", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_deterministic_drafter_is_replayed_round_by_round(temperature: float, gamma: int) -> None:
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=SEED)
    drafter = PromptLookupDrafter(min_ngram=1)
    engine = Engine(target("llama"), draft=PromptLookupDrafter(min_ngram=1), gamma=gamma)
    for prompt, text in zip(PROMPTS, _texts(params), strict=True):
        records = [record for record, _ in rounds(target("llama"), drafter, text, gamma)]
        (result,) = engine.generate([prompt], params)
        assert result.statistics == SpeculationStatistics.from_rounds(records)


def test_the_overlap_is_that_of_the_two_laws() -> None:
    model = target("llama")
    params = SamplingParams(max_tokens=12, temperature=0.9, seed=SEED)
    text = _texts(params)[0]
    same = guesses(model, DRAFTERS["self"]("llama"), text)
    assert [guess.overlap for guess in same] == pytest.approx([1.0] * 12, abs=1e-5)
    assert all(guess.is_right for guess in same)
    ids = torch.tensor([[*PROMPTS[0], *text.output]])
    cache = model.open_cache()
    row = cache.add()
    logits = model.forward(cache, Rows([row], [ids[0].tolist()]))[0]
    laws = torch.softmax(logits.double() / 0.9, dim=-1)
    uniform = torch.full_like(laws[0], 1 / laws.shape[-1])
    found = guesses(model, DRAFTERS["random"]("llama"), text)
    for number, guess in enumerate(found):
        law = laws[len(PROMPTS[0]) - 1 + number]
        assert guess.overlap == pytest.approx(float(torch.minimum(law, uniform).sum()), abs=1e-4)
