"""Rungs 4, 5 and 7 on a real model: SmolLM2-135M-Instruct, float32, from the catalogue."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import pytest
import torch

from draftsmith import (
    Drafter,
    Engine,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
    SamplingParams,
    SpeculativeDrafter,
    load_engine,
)
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.load import load_adapted
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.reference import local_path, resolve

pytestmark = [pytest.mark.real_model, pytest.mark.xdist_group("real_model")]

PROMPTS = (
    "def fibonacci(n):\n    ",
    "The three primary colours are",
    "Q: What is the capital of France?\nA:",
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine("smollm2-135m-instruct", dtype="float32", device="cpu", threads=1)


@pytest.fixture(scope="module")
def stored() -> Engine:
    return load_engine("smollm2-135m-instruct", device="cpu", threads=1)


def drafters(engine: Engine) -> dict[str, Drafter]:
    assert engine.tokenizer is not None
    vocab_size = engine.target.traits.vocab_size
    text = engine.tokenizer.encode("def f(n):\n    return n\nThe colours are red and blue.\n" * 3)
    return {
        "itself": ModelDrafter(engine.target),
        "prompt lookup": PromptLookupDrafter(),
        "bigram": NgramDrafter(NgramTable.from_tokens([text], vocab_size)),
        "random": RandomDrafter(vocab_size),
        "hierarchical": SpeculativeDrafter(engine.target, PromptLookupDrafter()),
    }


def test_greedy_text_is_that_of_an_independent_implementation(engine: Engine) -> None:
    assert engine.tokenizer is not None
    source = resolve("smollm2-135m-instruct")
    path = local_path(source)
    independent = load_adapted(source, path, torch.float32, torch.device("cpu"))
    assert isinstance(independent, CausalModel)
    params = SamplingParams(max_tokens=16)
    for prompt in PROMPTS[:2]:
        ids = engine.tokenizer.encode(prompt)
        inputs = torch.tensor([ids])
        theirs = independent.model.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=16, do_sample=False
        )[0, len(ids) :].tolist()
        for target in (engine.target, independent):
            for draft, gamma in ((None, 0), (PromptLookupDrafter(), 4)):
                ours = Engine(target, engine.tokenizer, draft, gamma=gamma)
                assert list(ours.generate(prompt, params)[0].token_ids) == theirs


def test_the_file_is_read_natively_and_stays_quantised(stored: Engine) -> None:
    assert isinstance(stored.target, CpuDecoder)
    path = local_path(resolve("smollm2-135m-instruct"))
    assert path is not None
    # No copy of the embedding, no wider type.
    assert stored.target.weight_bytes_per_pass <= 1.05 * path.stat().st_size


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_one_seed_gives_one_text_for_every_drafter(stored: Engine, temperature: float) -> None:
    engine = stored
    params = SamplingParams(max_tokens=16, temperature=temperature, seed=7)
    plain = engine.generate(PROMPTS[0], params)[0].token_ids
    # Each drafter with each gamma, at one temperature or the other.
    for name, draft in drafters(engine).items():
        for gamma in (4,) if temperature else (1, 8):
            one = Engine(engine.target, engine.tokenizer, draft, gamma=gamma)
            assert one.generate(PROMPTS[0], params)[0].token_ids == plain, (name, gamma)


def test_a_batch_gives_the_texts_of_its_prompts_alone(engine: Engine) -> None:
    params = SamplingParams(max_tokens=20, temperature=0.8, seed=7)
    alone = [engine.generate(prompt, params)[0].token_ids for prompt in PROMPTS]
    batch = Engine(engine.target, engine.tokenizer, PromptLookupDrafter(), gamma=4)
    together = [result.token_ids for result in batch.generate(list(PROMPTS), params)]
    reordered = [result.token_ids for result in batch.generate(list(PROMPTS[::-1]), params)]
    assert together == alone
    assert reordered == alone[::-1]


def test_the_chat_template_is_the_models(engine: Engine) -> None:
    assert engine.tokenizer is not None
    ids = engine.tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
    assert engine.target.traits.eos_token_ids[0] in ids  # <|im_end|> ends each turn
