"""Lenience in the engine: how far greedy texts stray, and that everything around it still holds."""

from functools import cache
from typing import Any

import pytest
import torch

from draftsmith.core import lenience as rule
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters import Draft, DraftContext, Drafter, ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import FinishReason, GenerationResult
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.models.contract import Rows
from tests import tiny
from tests.engine.kit import PROMPTS, Ramp, target, texts, twin

GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.7, "repetition_penalty": 1.3}


class Always(Drafter):
    """Drafts one token over and over."""

    def __init__(self, token: int) -> None:
        self.token = token

    def propose(self, context: DraftContext) -> Draft:
        rows = [[self.token] * view.gamma for view in context.sequences]
        return Draft.certain(rows, context.device)


@cache
def run(lenience: float, drafter: str = "model", **options: Any) -> list[GenerationResult]:
    params = SamplingParams(max_tokens=12, ignore_eos=True, lossy_lenience=lenience, **options)
    drafters: dict[str, Drafter] = {
        "model": ModelDrafter(twin("llama")),
        "ramp": Ramp(),
        "hierarchical": SpeculativeDrafter(twin("llama"), Ramp(), inner_gamma=2),
    }
    return Engine(target("llama"), draft=drafters[drafter], gamma=3).generate(PROMPTS, params)


def total(results: list[GenerationResult]) -> SpeculationStatistics:
    return sum((result.statistics for result in results), SpeculationStatistics())


def least_share(results: list[GenerationResult], params: SamplingParams) -> float:
    """The smallest probability of an output token, as a share of the largest at its place."""
    law = SamplingLaw(params, ())
    shares: list[float] = []
    for prompt, result in zip(PROMPTS, results, strict=True):
        output = list(result.token_ids)
        cache_ = target("llama").open_cache()
        text = [*prompt, *output[:-1]]
        logits = target("llama").forward(cache_, Rows([cache_.add()], [text]))[0]
        history = History(torch.tensor(prompt), torch.empty(0, dtype=torch.long))
        rows = law(logits[len(prompt) - 1 :], history, torch.tensor(output[:-1]))
        own = rows.gather(1, torch.tensor(output).unsqueeze(1)).squeeze(1)
        shares += (own / rows.amax(1)).tolist()
    return min(shares)


@pytest.mark.parametrize("options", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("drafter", ["model", "ramp", "hierarchical"])
@pytest.mark.parametrize("lenience", [0.6, 0.2, 0.02])
def test_every_token_has_its_share_of_the_best(
    lenience: float, drafter: str, options: dict[str, Any]
) -> None:
    shares = least_share(
        run(lenience, drafter, **options), SamplingParams(temperature=1.0, **options)
    )
    assert shares >= lenience * (1 - 1e-4)


def test_lenience_keeps_more_and_does_change_the_text() -> None:
    alphas = [total(run(lenience, "ramp")).alpha or 0.0 for lenience in (1.0, 0.05, 0.001)]
    assert alphas == sorted(alphas)
    assert alphas[0] < 0.2 < alphas[-1]
    assert texts(run(0.05, "model")) != texts(run(1.0, "model"))


def test_a_lenience_of_one_is_the_greedy_text() -> None:
    assert texts(run(1.0)) == texts(Engine(target("llama")).generate(PROMPTS, GREEDY))


def test_the_printed_inequality_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """p(x) <= l max(p), as the paper has it, keeps the drafts that it should reject."""

    def as_printed(probs: torch.Tensor, tokens: torch.Tensor, share: float) -> torch.Tensor:
        own = probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        return own <= share * probs.amax(-1)

    monkeypatch.setattr(rule, "is_spared", as_printed)
    results = run.__wrapped__(0.6, "ramp")
    assert least_share(results, SamplingParams(temperature=1.0)) < 0.1


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_changes_no_lenient_text(temperature: float) -> None:
    params = SamplingParams(max_tokens=10, temperature=temperature, seed=5, lossy_lenience=0.3)
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    alone = [engine.generate(prompt, params)[0] for prompt in PROMPTS]
    assert texts(engine.generate(PROMPTS, params)) == texts(alone)
    order = [3, 0, 4]
    results = engine.generate([PROMPTS[i] for i in order], params)
    assert texts(results) == texts([alone[i] for i in order])


def test_exact_and_lenient_requests_share_a_batch() -> None:
    params = [
        SamplingParams(max_tokens=10, lossy_lenience=0.1),
        SamplingParams(max_tokens=10),
        SamplingParams(max_tokens=10, temperature=0.9, seed=1, lossy_lenience=0.1),
        SamplingParams(max_tokens=10, temperature=0.9, seed=1),
    ]
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    plain = Engine(target("llama"))
    results = engine.generate([PROMPTS[0]] * 4, params)
    for exact in (1, 3):
        assert texts([results[exact]]) == texts(plain.generate([PROMPTS[0]], params[exact]))


def test_an_end_that_is_spared_ends_the_text() -> None:
    engine = Engine(target("llama"), draft=Always(tiny.EOS), gamma=3)
    strict = engine.generate(PROMPTS[0], SamplingParams(max_tokens=8))[0]
    assert strict.token_ids[0] != tiny.EOS
    result = engine.generate(PROMPTS[0], SamplingParams(max_tokens=8, lossy_lenience=1e-12))[0]
    assert result.token_ids == (tiny.EOS,)
    assert result.finish_reason is FinishReason.STOP
    assert result.statistics.num_accepted == 1


def test_what_is_banned_is_never_spared() -> None:
    engine = Engine(target("llama"), draft=Always(tiny.EOS), gamma=3)
    params = SamplingParams(max_tokens=8, min_tokens=4, lossy_lenience=1e-12)
    assert engine.generate(PROMPTS[0], params)[0].token_ids.index(tiny.EOS) == 4
    params = SamplingParams(max_tokens=8, banned_token_ids=(tiny.EOS,), lossy_lenience=1e-12)
    assert tiny.EOS not in engine.generate(PROMPTS[0], params)[0].token_ids


def test_the_inner_text_of_a_hierarchical_draft_is_exact() -> None:
    """With lenient inner rounds, the reported law would not be the law drawn from."""
    drafter = SpeculativeDrafter(target("llama"), Ramp(), inner_gamma=2)
    for temperature in (0.0, 0.9):
        exact, lenient = (_inner_draft(drafter, temperature, lenience) for lenience in (1.0, 0.001))
        assert lenient == exact


def _inner_draft(drafter: Drafter, temperature: float, lenience: float) -> list[list[int]]:
    params = SamplingParams(
        temperature=temperature, seed=2, verifier="rejection", lossy_lenience=lenience
    )
    drafts: list[list[int]] = []
    for prompt in PROMPTS:
        request = make_request(prompt, params, target("llama").traits, None)
        one = request.sequence(0, 2, torch.device("cpu"), None)
        context = RoundContext([one.turn(6)], tiny.VOCAB, torch.device("cpu"))
        drafts.append(drafter.propose(context).tokens[0].tolist())
    return drafts
