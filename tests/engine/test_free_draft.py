"""The free draft through a whole engine: the text of plain decoding, drafted for in trees.

`test_exactness.py` has chains.
"""

from functools import cache

import pytest

from draftsmith.core.gamma import Gamma
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters import FreeDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import LanguageModel
from tests.engine.kit import PROMPTS, texts
from tests.models.native.test_cpu import fast, plain

PARAMS = {
    "greedy": SamplingParams(max_tokens=20),
    "seeded": SamplingParams(max_tokens=16, temperature=0.7, top_p=0.9, seed=7),
    "several": SamplingParams(max_tokens=8, temperature=0.8, presence_penalty=0.4, seed=3, n=2),
}


@cache
def model() -> LanguageModel:
    found = fast("llama")
    return found if found.takes_trees else plain("llama")


@cache
def plain_texts(mode: str) -> list[list[tuple[int, ...]]]:
    engine = Engine(model())
    return [texts(engine.generate(prompt, PARAMS[mode]))[0] for prompt in PROMPTS]


@pytest.mark.parametrize("gamma", [6, "auto"])
@pytest.mark.parametrize("mode", PARAMS)
def test_the_text_is_that_of_plain_decoding(mode: str, gamma: Gamma) -> None:
    engine = Engine(model(), draft=FreeDrafter(), gamma=gamma)
    # Again, with all that was learnt from the first time.
    for _ in range(2):
        assert texts(engine.generate(PROMPTS, PARAMS[mode])) == plain_texts(mode)


def test_what_it_has_seen_makes_it_faster() -> None:
    engine = Engine(model(), draft=FreeDrafter(), gamma=5)
    passes: list[float] = []
    for _ in range(2):
        results = engine.generate(PROMPTS, PARAMS["greedy"])
        total = sum((one.statistics for one in results), SpeculationStatistics())
        passes.append(total.tokens_per_pass or 0.0)
    assert passes[1] > 1.5 * passes[0] > 1.5
