"""What the engine says is the same with the sampling kernels and without them."""

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.kernels.cpu import library, sampling
from tests.engine.kit import PROMPTS, target, twin

pytestmark = pytest.mark.skipif(library.library() is None, reason="installed without the kernels")

MODES = [
    SamplingParams(max_tokens=24),
    SamplingParams(max_tokens=24, repetition_penalty=1.3, banned_token_ids=(7,)),
    *(
        SamplingParams(
            max_tokens=24, temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=5, verifier=name
        )
        for name in ("coupled", "block", "rejection")
    ),
    SamplingParams(max_tokens=24, temperature=1.2, frequency_penalty=0.5, seed=6),
]


def texts(params: SamplingParams) -> list[list[tuple[int, ...]]]:
    drafts = [None, PromptLookupDrafter(min_ngram=1), ModelDrafter(twin("llama"))]
    engines = [Engine(target("llama"), draft=draft) for draft in drafts]
    return [
        [result.token_ids for result in engine.generate(PROMPTS[:3], params)] for engine in engines
    ]


@pytest.mark.parametrize("params", MODES)
def test_texts_are_those_of_the_plain_code(
    params: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = texts(params)
    monkeypatch.setattr(sampling, "library", lambda: None)
    assert texts(params) == fast
    if params.is_greedy or params.verifier_name == "coupled":
        assert fast[0] == fast[1] == fast[2]
