"""Structured outputs on a real model: SmolLM2-135M-Instruct as its file has it."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import gc
import json
import weakref
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from draftsmith import (
    Drafter,
    Engine,
    ModelDrafter,
    PromptLookupDrafter,
    RandomDrafter,
    SamplingParams,
    StructuredOutputs,
    load_engine,
)
from draftsmith.constraints.grammars import grammars_of
from draftsmith.models.hf.load import wrap_tokenizer
from draftsmith.models.load import load_tokenizer
from draftsmith.models.reference import local_path, resolve
from tests.grids import thinned

pytestmark = [pytest.mark.real_model, pytest.mark.xdist_group("real_model")]

NAME = "smollm2-135m-instruct"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["en", "fr", "de"]}, "maxItems": 3},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}
PROMPTS = [
    [{"role": "user", "content": "Describe Marie Curie as JSON: name, age and languages."}],
    [{"role": "user", "content": "Invent a person from Berlin, as JSON."}],
]
FORMS = {
    "any whitespace": StructuredOutputs(json=SCHEMA),
    "compact": StructuredOutputs(json=SCHEMA, disable_any_whitespace=True),
}
MODES = {
    "greedy": SamplingParams(max_tokens=90),
    "seeded": SamplingParams(max_tokens=90, temperature=0.8, top_p=0.95, seed=11),
}


@pytest.fixture(scope="module")
def off() -> Engine:
    return load_engine(NAME, gamma=0, device="cpu", threads=1)


def drafters(engine: Engine) -> dict[str, Drafter | None]:
    return {
        "none": None,
        "itself": ModelDrafter(engine.target),
        "prompt lookup": PromptLookupDrafter(),
        "random": RandomDrafter(engine.target.traits.vocab_size),
    }


@pytest.mark.parametrize(("name", "mode"), thinned(FORMS, MODES, every=2))
def test_a_text_fits_its_schema_and_is_that_of_plain_decoding(
    off: Engine, name: str, mode: str
) -> None:
    params = [
        SamplingParams.from_options(**_options(MODES[mode]), structured_outputs=FORMS[name])
        for _ in PROMPTS
    ]
    plain = [off.generate([prompt], one)[0] for prompt, one in zip(PROMPTS, params, strict=True)]
    for result in plain:
        assert result.finish_reason == "stop", result.text
        value = json.loads(result.text)
        assert list(value) == ["name", "age", "languages"]
        assert isinstance(value["name"], str)
        assert 0 <= value["age"] <= 120
        assert set(value["languages"]) <= {"en", "fr", "de"}
    for drafter, draft in drafters(off).items():
        for gamma in (None,) if draft is None else (4, "auto"):
            on = Engine(off.target, off.tokenizer, draft, gamma=gamma)
            results = on.generate(PROMPTS, params)
            assert [one.token_ids for one in results] == [one.token_ids for one in plain], drafter
            assert sum(one.statistics.num_rounds for one in results) < sum(
                one.statistics.num_rounds for one in plain
            )


def _options(params: SamplingParams) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "top_p", "seed")
    return {name: getattr(params, name) for name in names}


def test_the_files_own_tokenizer_and_that_of_transformers_give_the_same_masks(off: Engine) -> None:
    path = local_path(resolve(NAME))
    assert path is not None
    theirs = wrap_tokenizer(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
    assert off.tokenizer is not None
    ends = frozenset(off.target.traits.eos_token_ids)
    text = off.tokenizer.encode_plain('{"name":"Zoë","age":34,"languages":["de","en"]}')
    size = off.target.traits.vocab_size
    walks = [
        grammars_of(tokenizer, size, ends).compiled(FORMS["compact"]).begin()
        for tokenizer in (off.tokenizer, theirs)
    ]
    rows = walks[0].num_allowed([], text) + 1
    assert rows > 10
    own, other = (walk.allowed(text[: rows - 1], rows) for walk in walks)
    assert torch.equal(own, other)


def test_compiled_forms_do_not_keep_the_tokenizer_that_they_are_for() -> None:
    tokenizer = load_tokenizer(NAME)
    grammars_of(tokenizer, 49_152, frozenset({2})).compiled(FORMS["compact"]).begin()
    alive = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert alive() is None
