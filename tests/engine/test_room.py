"""Too little memory for all: sequences wait or make way, and say what they would have said."""
# transformers' objects, which the models are made of, have looser annotations:
# pyright: basic

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter, SequenceView
from draftsmith.drafters.model import ModelState
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.result import GenerationResult
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.room import Room
from draftsmith.errors import CacheFullError, InvalidRequestError
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import Cache, LanguageModel
from draftsmith.models.follower import Follower
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_cache import PagePool
from draftsmith.models.native.read import read_folder
from tests import tiny
from tests.engine.kit import target as adapted
from tests.kernels.gpu.device import DEVICE
from tests.models.native.test_cpu import SIZED
from tests.models.native.test_decoder import lively
from tests.wrapped import Wrapped

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

PROMPTS = [
    [(3 * i * i + k * i + k) % 90 + 2 for i in range(length)]
    for k, length in enumerate((40, 100, 3, 120, 62))
]
LONG = SamplingParams(max_tokens=70, ignore_eos=True)
LAWS = {
    "greedy": LONG,
    "penalised": replace(LONG, repetition_penalty=1.2),
    "coupled": replace(LONG, temperature=0.9, seed=5),
    "block": replace(LONG, temperature=0.9, seed=5, verifier="block"),
    "rejection": replace(LONG, temperature=0.9, seed=5, verifier="rejection"),
}
TIGHT = 256
"""One text fits, and half of another."""


@cache
def files(kind: str) -> tuple[object, object]:
    family, changes = SIZED["llama, roomy"]
    model = lively(family, **changes)
    with TemporaryDirectory() as folder:
        (model if kind == "target" else tiny.near_twin(model)).save_pretrained(folder)
        return read_folder(Path(folder))


def on_cpu(kind: str, **options: int) -> LanguageModel:
    config, weights = files(kind)
    return CpuDecoder(weights, config, kind, **options)  # type: ignore[arg-type]


@cache
def on_gpu(kind: str) -> LanguageModel:
    config, weights = files(kind)
    return GpuDecoder.from_weights(weights, config, DEVICE, torch.float32, kind)  # type: ignore[arg-type]


DRAFTS: dict[str, Callable[[Callable[[str], LanguageModel]], Drafter | None]] = {
    "none": lambda make: None,
    "model": lambda make: ModelDrafter(make("draft")),
    "few ids": lambda make: ModelDrafter(on_cpu("draft", num_head_ids=16)),
    "lookup": lambda make: PromptLookupDrafter(min_ngram=1),
    "hierarchical": lambda make: SpeculativeDrafter(
        make("draft"), PromptLookupDrafter(min_ngram=1), inner_gamma=2
    ),
}


def engine(make: Callable[[str], LanguageModel], draft: str, **options: object) -> Engine:
    drafter = DRAFTS[draft](make)
    gamma = options.pop("gamma", 3 if drafter else None)
    return Engine(make("target"), None, drafter, gamma=gamma, **options)  # type: ignore[arg-type]


def told(results: Sequence[GenerationResult]) -> list[object]:
    """Texts, ends, errors, and every round of them."""
    return [
        (one.token_ids, one.finish_reason, one.error, one.statistics, one.completions[0].trace)
        for one in results
    ]


def run(made: Engine, params: SamplingParams) -> list[object]:
    """Run all prompts step by step, looking at the caches after each."""
    generation = made.start(PROMPTS, params)
    for _ in generation:
        check(made)
    return told(generation.results())


def check(made: Engine) -> None:
    for follower in made.scheduler._caches._open:
        assert follower.cache is not None
        follower.cache.check_integrity()


# --- the same text ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("law", LAWS)
def test_who_makes_way_says_the_same_later(draft: str, law: str) -> None:
    """Rounds, too: what was drafted and kept in each is what it would have been."""
    tight = engine(on_cpu, draft, cache_tokens=TIGHT)
    found = run(tight, LAWS[law])
    assert tight.cache_statistics().num_preemptions > 0
    assert found == told(engine(on_cpu, draft).generate(PROMPTS, LAWS[law]))


@pytest.mark.parametrize("law", ["greedy", "coupled"])
def test_gamma_auto_makes_way_too(law: str) -> None:
    params = replace(LAWS[law], max_tokens=150)
    tight = engine(on_cpu, "model", gamma="auto", cache_tokens=384)
    texts = [one[0] for one in run(tight, params)]  # type: ignore[index]
    assert tight.cache_statistics().num_preemptions > 0
    plain = engine(on_cpu, "none").generate(PROMPTS, params)
    assert texts == [one.token_ids for one in plain]


@pytest.mark.long
@pytest.mark.parametrize("is_graphed", [False, True])
@pytest.mark.parametrize("draft", ["none", "model"])
@pytest.mark.parametrize("law", ["greedy", "coupled", "block"])
def test_pages_of_a_gpu_make_way(
    law: str, draft: str, is_graphed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("target", "draft"):
        monkeypatch.setattr(on_gpu(kind), "can_be_captured", is_graphed)
    tight = engine(on_gpu, draft, cache_tokens=TIGHT)
    found = run(tight, LAWS[law])
    assert tight.cache_statistics().num_preemptions > 0
    tight.reset_prefix_cache()
    assert found == told(engine(on_gpu, draft).generate(PROMPTS, LAWS[law]))


def test_sharing_changes_no_text() -> None:
    apart = engine(on_cpu, "model", prefix_caching=False)
    shared = engine(on_cpu, "model")
    want = told(apart.generate(PROMPTS, LAWS["block"]))
    for _ in range(2):
        assert run(shared, LAWS["block"]) == want
    assert shared.cache_statistics().num_recalled == 2 * 64
    assert apart.cache_statistics().num_kept == 0


# --- what is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [on_cpu, on_gpu])
def test_a_prompt_that_was_read_is_recalled(make: Callable[[str], LanguageModel]) -> None:
    made = engine(make, "model")
    made.reset_prefix_cache()
    before, again = (made.generate([PROMPTS[1]], LONG)[0] for _ in range(2))
    assert (before.num_cached_tokens, again.num_cached_tokens) == (0, 64)
    assert again.token_ids == before.token_ids
    # The answer, too: a conversation goes on behind it.
    longer = made.generate([[*PROMPTS[1], *again.token_ids, 5, 6]], LONG)[0]
    assert longer.num_cached_tokens == 128
    statistics = made.cache_statistics()
    assert (statistics.num_held, statistics.num_recalled) == (0, 192)
    assert statistics.num_prompt_tokens == 100 + 100 + 172
    assert statistics.num_kept >= 192
    made.reset_prefix_cache()
    assert made.cache_statistics().num_kept == 0


def test_samples_of_one_prompt_read_it_once() -> None:
    params = replace(LONG, n=4, temperature=0.9, seed=2)
    [result] = engine(on_cpu, "model").generate([PROMPTS[1]], params)
    assert [one.num_cached_tokens for one in result.completions] == [0, 64, 64, 64]
    [apart] = engine(on_cpu, "model", prefix_caching=False).generate([PROMPTS[1]], params)
    assert told([result]) == told([apart])


def test_a_draft_model_recalls_what_it_has_read() -> None:
    read: list[int] = []

    class Counted(Wrapped):
        def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
            read.append(len(tokens))
            super().prefill(cache, row, tokens)

    for shares in (False, True):
        drafter = ModelDrafter(Counted(on_cpu("draft")))
        made = Engine(on_cpu("target"), draft=drafter, gamma=3, prefix_caching=shares)
        made.generate([PROMPTS[1]], LONG)
        read.clear()
        made.generate([PROMPTS[1]], LONG)
        assert max(read) == (99 - 64 if shares else 99)


@pytest.mark.long
def test_engines_in_threads_share_the_pages_of_a_model() -> None:
    model, draft = small_pool("target"), small_pool("draft")
    want = [one.token_ids for one in engine(on_gpu, "none").generate(PROMPTS, LAWS["coupled"])]
    found: list[list[tuple[int, ...]]] = []

    def run_both() -> None:
        made = Engine(model, draft=ModelDrafter(draft), gamma=2, cache_tokens=512)
        for _ in range(2):
            texts = made.generate(PROMPTS, LAWS["coupled"])
            found.append([one.token_ids for one in texts])

    threads = [threading.Thread(target=run_both) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 4
    for one in (model, draft):
        one.pool.check_integrity([])


# --- who waits, and who is refused ----------------------------------------------------------------


@pytest.mark.long
def test_sixty_four_long_requests_end_in_a_memory_for_two() -> None:
    made = engine(on_cpu, "model", cache_tokens=TIGHT, max_batch_size=64)
    prompts = [[k % 90, *PROMPTS[k % 5]] for k in range(64)]
    params = replace(LAWS["coupled"], max_tokens=40)
    found = [one.token_ids for one in made.generate(prompts, params)]
    assert made.cache_statistics().num_held == 0
    free = engine(on_cpu, "model", max_batch_size=64)
    assert found == [one.token_ids for one in free.generate(prompts, params)]


def test_the_oldest_is_never_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[int] = []
    let_go = Room._let_go

    def spy(room: Room, sample: Sample, followers: list[Follower]) -> None:
        gone.append(sample.id)
        let_go(room, sample, followers)

    monkeypatch.setattr(Room, "_let_go", spy)
    made = engine(on_cpu, "none", cache_tokens=TIGHT)
    generation = made.start(PROMPTS, LONG)
    oldest = generation._jobs[0].samples[0].id
    list(generation)
    assert gone
    assert oldest not in gone


def test_what_can_never_fit_is_refused_before_anything_runs() -> None:
    made = engine(on_cpu, "model", cache_tokens=192)
    with pytest.raises(
        InvalidRequestError, match="take 250 tokens of cache, and there is room for 192"
    ):
        made.generate(PROMPTS[1], max_tokens=150)
    with pytest.raises(InvalidRequestError, match="300 tokens and max_tokens="):
        made.generate([3] * 300)
    assert made.cache_statistics().num_prompt_tokens == 0
    [good, bad] = made.generate([PROMPTS[2], PROMPTS[1]], [LONG, replace(LONG, max_tokens=150)])
    assert len(good.token_ids) == 70
    assert "room for 192" in str(bad.error)


def test_an_answer_without_a_length_goes_as_far_as_the_memory() -> None:
    made = engine(on_cpu, "model", cache_tokens=192)
    assert len(made.generate(PROMPTS[1], ignore_eos=True)[0].token_ids) == 92


@pytest.mark.parametrize("number", [0, 63, True])
def test_too_small_a_memory_is_refused(number: object) -> None:
    with pytest.raises(InvalidRequestError, match="cache_tokens must be"):
        engine(on_cpu, "none", cache_tokens=number)


def test_a_model_whose_memory_is_not_counted_takes_no_number() -> None:
    with pytest.raises(InvalidRequestError, match="cache_tokens=640 needs a native decoder"):
        Engine(adapted("llama"), cache_tokens=640)


@pytest.mark.long
@pytest.mark.parametrize("draft", ["none", "model"])
def test_a_full_device_lets_some_wait(draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has set a number, and a pool that is full cannot grow."""

    def refuse(pool: PagePool) -> None:
        raise CacheFullError("the device has no memory for more")

    monkeypatch.setattr(PagePool, "_grow_pages", refuse)
    monkeypatch.setattr("draftsmith.models.native.gpu_store._FIRST_TOKENS", 256)
    models = {kind: small_pool(kind) for kind in ("target", "draft")}
    full = engine(models.__getitem__, draft)
    prompts = [*PROMPTS, [3] * 180]
    *found, long = full.generate(prompts, LAWS["coupled"])
    assert full.cache_statistics().num_preemptions > 0
    assert long.error is None
    too_long = full.generate([[4] * 250, PROMPTS[2]], LAWS["coupled"])
    assert [one.error for one in too_long] == ["the device has no memory for more", None]
    for model in models.values():
        model.pool.check_integrity([])
    monkeypatch.undo()
    assert told([*found, long]) == told(engine(on_gpu, draft).generate(prompts, LAWS["coupled"]))


def small_pool(kind: str) -> GpuDecoder:
    model = on_gpu(kind)
    assert isinstance(model, GpuDecoder)
    return GpuDecoder.on_weights(model.weights, model.config, kind)


# --- planted faults -----------------------------------------------------------------------------


def _comes_back_with_other_noise(room: Room, sample: Sample, followers: list[Follower]) -> None:
    for follower in followers:
        follower.release(sample.id)
    sample.seed += 1
    room.is_full = False


def _drafts_nothing(state: ModelState, view: SequenceView, num_tokens: int) -> bool:
    """A round goes on without its draft, where memory is short."""
    return len(view.tokens) % 5 > 0


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("draftsmith.engine.room.Room._let_go", _comes_back_with_other_noise),
        ("draftsmith.drafters.model.ModelState._has_memory", _drafts_nothing),
    ],
)
def test_a_planted_fault_is_seen(
    place: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = told(engine(on_cpu, "model").generate(PROMPTS, LAWS["block"]))
    monkeypatch.setattr(place, fault)
    assert run(engine(on_cpu, "model", cache_tokens=TIGHT), LAWS["block"]) != want
