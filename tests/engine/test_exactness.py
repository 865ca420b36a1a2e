"""Rung 5: the same text for every drafter, gamma, batch size and batch order."""

from dataclasses import replace
from functools import cache

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters import ModelDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from tests import tiny
from tests.engine.kit import DRAFTERS, PROMPTS, Ramp, target, texts, twin
from tests.grids import thinned

KINDS = ("llama", "gpt2", "t5", "bart")
GAMMAS = (1, 2, 4, 8)
MODES = {
    "greedy": SamplingParams(max_tokens=10),
    "greedy with penalties": SamplingParams(
        max_tokens=10, frequency_penalty=0.7, presence_penalty=0.4, repetition_penalty=1.3
    ),
    "seeded": SamplingParams(
        max_tokens=10,
        temperature=0.8,
        top_p=0.9,
        seed=7,
        frequency_penalty=0.3,
        presence_penalty=0.2,
        repetition_penalty=1.2,
    ),
}


@cache
def plain(kind: str, mode: str) -> list[list[tuple[int, ...]]]:
    """Each prompt's text at gamma 0, in a batch of one."""
    engine = Engine(target(kind))
    return [texts(engine.generate(prompt, MODES[mode]))[0] for prompt in PROMPTS]


@pytest.mark.parametrize(("kind", "drafter", "mode"), thinned(KINDS[1:], DRAFTERS, MODES, every=3))
def test_the_text_is_that_of_plain_decoding(kind: str, drafter: str, mode: str) -> None:
    number = KINDS.index(kind) + list(DRAFTERS).index(drafter) + list(MODES).index(mode)
    _says_the_same(kind, drafter, mode, GAMMAS[-(number % 2)])


@pytest.mark.parametrize(("drafter", "mode", "gamma"), thinned(DRAFTERS, MODES, GAMMAS, every=2))
def test_so_is_it_with_every_gamma(drafter: str, mode: str, gamma: int) -> None:
    _says_the_same("llama", drafter, mode, gamma)


def _says_the_same(kind: str, drafter: str, mode: str, gamma: int) -> None:
    draft = DRAFTERS[drafter](kind)
    results = Engine(target(kind), draft=draft, gamma=gamma).generate(PROMPTS, MODES[mode])
    assert texts(results) == plain(kind, mode)
    total = sum((result.statistics for result in results), SpeculationStatistics())
    assert total.num_drafted > 0
    if drafter == "self":
        assert total.num_accepted == total.num_tested, "its own drafts are always kept"


@pytest.mark.parametrize("kind", KINDS)
def test_these_texts_prove_something(kind: str) -> None:
    """Texts differ between prompts and modes, and the model draft is neither right nor wrong."""
    for mode, params in MODES.items():
        assert len({text for (text,) in plain(kind, mode)}) == len(PROMPTS)
        assert len({token for (text,) in plain(kind, mode) for token in text}) >= 6
        engine = Engine(target(kind), draft=ModelDrafter(twin(kind)), gamma=3)
        results = engine.generate(PROMPTS, params)
        total = sum((result.statistics for result in results), SpeculationStatistics())
        assert 0 < total.num_accepted < total.num_tested, mode
    assert plain(kind, "greedy") != plain(kind, "seeded") != plain(kind, "greedy with penalties")


@pytest.mark.parametrize("order", [[4, 2, 0, 1, 3], [1, 3, 4, 0, 2], [3, 3, 3]])
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_batch_changes_no_text(kind: str, order: list[int]) -> None:
    engine = Engine(target(kind), draft=ModelDrafter(twin(kind)), gamma=3)
    results = engine.generate([PROMPTS[i] for i in order], MODES["seeded"])
    assert texts(results) == [plain(kind, "seeded")[i] for i in order]


@pytest.mark.parametrize("gamma", [0, 3])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_batch_larger_than_fits_changes_no_text(size: int, gamma: int) -> None:
    engine = Engine(
        target("llama"), draft=ModelDrafter(twin("llama")), gamma=gamma, max_batch_size=size
    )
    assert texts(engine.generate(PROMPTS, MODES["seeded"])) == plain("llama", "seeded")


def test_lengths_and_parameters_may_differ_within_a_batch() -> None:
    params = [
        SamplingParams(max_tokens=3, temperature=0.8, seed=1),
        SamplingParams(max_tokens=17),
        SamplingParams(max_tokens=9, temperature=1.2, seed=2, verifier="coupled"),
        SamplingParams(max_tokens=1),
        SamplingParams(max_tokens=14, temperature=0.5, top_k=5, min_p=0.02, seed=3),
    ]
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=5, max_batch_size=3)
    alone = [
        Engine(target("llama")).generate(*pair)[0] for pair in zip(PROMPTS, params, strict=True)
    ]
    assert texts(engine.generate(PROMPTS, params)) == texts(alone)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_samples_are_the_same_with_any_drafter_and_differ_from_each_other(drafter: str) -> None:
    params = SamplingParams(max_tokens=10, temperature=0.9, seed=11, n=3)
    expected = texts(Engine(target("llama")).generate(PROMPTS[:2], params))
    assert all(len(set(samples)) == 3 for samples in expected)
    engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=3, max_batch_size=4)
    results = engine.generate(PROMPTS[:2], params)
    assert texts(results) == expected
    assert [one.index for one in results[0].completions] == [0, 1, 2]


def test_the_first_sample_does_not_depend_on_how_many_there_are() -> None:
    one, three = (
        Engine(target("llama")).generate(
            PROMPTS[0], SamplingParams(max_tokens=10, temperature=0.9, seed=11, n=n)
        )[0]
        for n in (1, 3)
    )
    assert one.token_ids == three.token_ids


def test_another_seed_is_another_text_and_no_seed_is_a_new_one_each_time() -> None:
    def text(seed: int | None) -> tuple[int, ...]:
        params = SamplingParams(max_tokens=24, temperature=1.0, seed=seed, ignore_eos=True)
        return Engine(target("llama")).generate(PROMPTS[0], params)[0].token_ids

    assert text(1) == text(1)
    # 24 tokens of a law of about 4 bits: an accidental twin has odds far below 1e-20.
    assert len({text(seed) for seed in (0, 1, 2, 2**63, 2**64 - 1)}) == 5
    assert len({text(None) for _ in range(4)}) == 4


@pytest.mark.parametrize("verifier", ["rejection", "block", "coupled"])
def test_every_verifier_is_reproducible_with_a_seed(verifier: str) -> None:
    params = SamplingParams(max_tokens=10, temperature=0.9, seed=3, verifier=verifier)
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    assert texts(engine.generate(PROMPTS, params)) == texts(engine.generate(PROMPTS, params))
    alone = [engine.generate(prompt, params)[0] for prompt in PROMPTS]
    assert texts(alone) == texts(engine.generate(PROMPTS, params))


@pytest.mark.parametrize("verifier", ["rejection", "block", "coupled"])
def test_greedy_text_is_the_same_with_every_verifier(verifier: str) -> None:
    params = SamplingParams(max_tokens=10, verifier=verifier)
    for drafter in ("model", "random", "hierarchical"):
        engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=3)
        assert texts(engine.generate(PROMPTS, params)) == plain("llama", "greedy")


def test_three_levels_of_drafters_give_the_plain_text() -> None:
    middle = SpeculativeDrafter(twin("llama"), Ramp(), inner_gamma=2)
    top = SpeculativeDrafter(tiny.model("gpt2"), middle, inner_gamma=3)
    for drafter in (middle, top):
        results = Engine(target("llama"), draft=drafter, gamma=6).generate(PROMPTS, MODES["seeded"])
        assert texts(results) == plain("llama", "seeded")


@pytest.mark.parametrize("mode", MODES)
def test_a_hierarchical_draft_of_the_target_itself_is_always_kept(mode: str) -> None:
    # Its laws see the drafts of the rounds above and within, as the target's do.
    drafter = SpeculativeDrafter(target("llama"), Ramp(), inner_gamma=2)
    results = Engine(target("llama"), draft=drafter, gamma=6).generate(PROMPTS, MODES[mode])
    assert texts(results) == plain("llama", mode)
    for result in results:
        assert result.statistics.num_accepted == result.statistics.num_tested > 0


@pytest.mark.parametrize("mode", ["seeded", "greedy with penalties"])
def test_rejected_drafts_leave_no_trace_in_penalties_or_caches(mode: str) -> None:
    long = replace(MODES[mode], max_tokens=50, frequency_penalty=1.5, ignore_eos=True)
    engine = Engine(target("llama"), draft=RandomDrafter(tiny.VOCAB), gamma=8)
    results = engine.generate(PROMPTS, long)
    assert sum(result.statistics.num_drafted for result in results) > 1000
    assert texts(results) == texts(Engine(target("llama")).generate(PROMPTS, long))


def test_a_drafter_serves_one_engine_after_another() -> None:
    drafter = ModelDrafter(twin("llama"))
    for _ in range(2):
        for gamma in (2, 4):
            engine = Engine(target("llama"), draft=drafter, gamma=gamma)
            assert texts(engine.generate(PROMPTS, MODES["greedy"])) == plain("llama", "greedy")


def test_two_streams_may_take_turns_with_one_drafter() -> None:
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    runs = [engine.start(prompt, MODES["seeded"]) for prompt in PROMPTS[:2]]
    streams = [iter(run) for run in runs]
    while streams:
        streams = [stream for stream in streams if next(stream, None) is not None]
    both = [run.results()[0] for run in runs]
    assert texts(both) == plain("llama", "seeded")[:2]
