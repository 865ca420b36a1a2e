"""What must also hold on a GPU: the same noise, the same exactness."""

import pytest
import torch

from draftsmith import (
    Drafter,
    Engine,
    ModelDrafter,
    PromptLookupDrafter,
    RandomDrafter,
    SamplingParams,
)
from draftsmith.core.noise import NoiseKeys, Stream, exponentials, uniforms
from draftsmith.models.hf.load import wrap_model
from tests import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33]]


def test_the_noise_is_that_of_the_cpu() -> None:
    seeds, samples = torch.tensor([7, -3]), torch.tensor([0, 2])
    cpu = NoiseKeys(seeds, samples)
    gpu = NoiseKeys(seeds.cuda(), samples.cuda())
    counters, columns = torch.tensor([0, 5]), torch.arange(4)
    drawn = uniforms(gpu, Stream.ACCEPT, counters.cuda(), columns.cuda())
    assert torch.equal(drawn.cpu(), uniforms(cpu, Stream.ACCEPT, counters, columns))
    raced = exponentials(gpu, counters.cuda(), 1000).cpu()
    torch.testing.assert_close(raced, exponentials(cpu, counters, 1000), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [*tiny.CAUSAL, *tiny.ENCODER_DECODER])
def test_texts_do_not_depend_on_the_draft(kind: str) -> None:
    target = wrap_model(tiny.raw_model(kind).cuda(), name=kind)
    drafts: list[Drafter] = [
        ModelDrafter(wrap_model(tiny.raw_model(kind, seed=1).cuda(), name="draft")),
        ModelDrafter(target),
        PromptLookupDrafter(min_ngram=1),
        RandomDrafter(tiny.VOCAB),
    ]
    for params in (
        SamplingParams(max_tokens=24, ignore_eos=True),
        SamplingParams(max_tokens=24, temperature=0.8, top_p=0.9, seed=7, repetition_penalty=1.1),
    ):
        plain = [Engine(target).generate(prompt, params)[0].token_ids for prompt in PROMPTS]
        for draft in drafts:
            batch = Engine(target, draft=draft, gamma=3).generate(PROMPTS, params)
            assert [result.token_ids for result in batch] == plain


def test_block_verification_runs_without_a_seed() -> None:
    target = wrap_model(tiny.raw_model("llama").cuda(), name="llama")
    draft = ModelDrafter(wrap_model(tiny.raw_model("llama", seed=1).cuda(), name="draft"))
    params = SamplingParams(max_tokens=40, temperature=1.0, ignore_eos=True)
    results = Engine(target, draft=draft, gamma=4).generate(PROMPTS, params)
    assert [len(result.token_ids) for result in results] == [40, 40, 40]
