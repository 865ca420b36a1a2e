"""Sequences that are drafted for in their own way, beside others in one batch."""

import pytest
import torch

from draftsmith.core.gamma import Gamma
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter, RandomDrafter
from draftsmith.drafters.prediction import PredictionDrafter
from draftsmith.engine.control.own import OwnDraft
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Generation
from draftsmith.engine.requests.result import Completion
from tests import tiny
from tests.engine import test_law
from tests.engine.kit import DRAFTERS, PROMPTS, target
from tests.statistics import assert_law

_WAYS: list[OwnDraft | None] = [
    OwnDraft(0),
    OwnDraft(7),
    OwnDraft(3, PromptLookupDrafter(min_ngram=1)),
    OwnDraft(5, RandomDrafter(tiny.VOCAB)),
    None,
    OwnDraft(None, PromptLookupDrafter(min_ngram=1)),
    OwnDraft(None),
]


def _run(engine: Engine, ways: list[OwnDraft | None], params: SamplingParams) -> list[Completion]:
    """One completion for each way, all in one batch."""
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(ways))]
    jobs = [engine.prepare(prompt, params) for prompt in prompts]
    for job, way in zip(jobs, ways, strict=True):
        job.samples[0].own_draft = way
    return [one.completions[0] for one in Generation(engine.scheduler, jobs).finish()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [2, "auto"])
@pytest.mark.parametrize("drafter", ["model", "prompt lookup", "block", "hierarchical"])
def test_their_texts_are_plain_decodings(drafter: str, gamma: Gamma, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=30, ignore_eos=True)
    plain = _run(Engine(target("llama")), [None] * len(_WAYS), params)
    engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=gamma)
    found = _run(engine, _WAYS, params)
    assert [one.token_ids for one in found] == [one.token_ids for one in plain]
    assert found[0].statistics.num_drafted == 0
    assert len(found[3].statistics.drafted_per_position) == 5
    if gamma == 2 and drafter != "prompt lookup":
        assert len(found[1].statistics.drafted_per_position) == 7
        assert len(found[4].statistics.drafted_per_position) == 2


def test_an_engine_without_a_draft_takes_sequences_with_their_own() -> None:
    params = SamplingParams(seed=3, max_tokens=20, ignore_eos=True)
    right = _run(Engine(target("llama")), [None, None], params)
    ways = [OwnDraft(6, PredictionDrafter(right[0].token_ids)), None]
    found = _run(Engine(target("llama")), ways, params)
    assert [one.token_ids for one in found] == [one.token_ids for one in right]
    assert found[0].statistics.num_accepted > 10
    assert found[1].statistics.num_drafted == 0


def test_no_trace_is_left_of_sequences_that_have_gone() -> None:
    engine = Engine(target("llama"), draft=DRAFTERS["model"]("llama"), gamma=2)
    params = SamplingParams(seed=3, max_tokens=5)
    _run(engine, _WAYS, params)
    assert not engine.scheduler._own_drafts._states  # pyright: ignore[reportPrivateUsage]


@pytest.mark.long
@pytest.mark.statistical
@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_the_joint_law_is_the_targets_where_laws_and_certain_drafts_are_mixed(
    verifier: str,
) -> None:
    main: Drafter = ModelDrafter(test_law.model(10))
    engine = Engine(test_law.model(14), draft=main, gamma=2, max_batch_size=1000)
    job = engine.prepare(test_law.PROMPT, test_law.params(verifier))
    for sample in job.samples[::2]:
        sample.own_draft = OwnDraft(2, PredictionDrafter([1, 0, 1]))
    for sample in job.samples[1::4]:
        sample.own_draft = OwnDraft(1)
    [result] = Generation(engine.scheduler, [job]).finish()
    tokens = torch.tensor([one.token_ids[: test_law.LENGTH] for one in result.completions])
    outcomes = tokens[:, 0] * test_law.VOCAB + tokens[:, 1]
    assert_law(
        outcomes,
        test_law.exact_law(),
        false_fail_rate=test_law.FALSE_FAIL_RATE,
        detects=test_law.DETECTS,
    )
    assert 0.2 < (result.statistics.alpha or 0) < 0.9, "drafts must be neither useless nor right"
