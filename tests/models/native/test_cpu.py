"""The fast decoder beside the plain one; rung 6 of the ladder, bit for bit."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import Rows
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.testing import check_model
from tests import tiny
from tests.models.native.test_decoder import MODELS, lively

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

TOKENS = [(7 * i * i + 3 * i + 5) % tiny.VOCAB for i in range(100)]
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Sizes that divide into the groups of the quantised formats."""

SIZED: dict[str, tuple[str, dict[str, Any]]] = {
    "wide qwen2": ("qwen2", WIDE),
    "wide llama": ("llama", WIDE),
    "llama, roomy": ("llama", {"max_position_embeddings": 1024}),
    "llama, odd vocabulary": ("llama", {"vocab_size": 93}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    cpu.set_num_threads(1)
    yield
    cpu.set_num_threads(1)
    cpu.set_instruction_set(None)


@cache
def read(name: str, format: str | None) -> tuple[Any, Any]:
    kind, changes = SIZED.get(name) or MODELS[name]
    with TemporaryDirectory() as folder:
        lively(kind, **changes).save_pretrained(folder)
        return read_folder(Path(folder), format)


def fast(name: str, format: str | None = None, **options: Any) -> CpuDecoder:
    config, weights = read(name, format)
    return CpuDecoder(weights, config, name, **options)


def plain(name: str, format: str | None = None) -> TorchDecoder:
    config, weights = read(name, format)
    return TorchDecoder.from_weights(weights, config)


def logits_of(model: Any, chunks: list[int]) -> Tensor:
    """Logits after each of `TOKENS`, fed in chunks of these sizes."""
    cache = model.open_cache()
    row, at, parts = cache.add(), 0, []
    for size in chunks:
        parts.append(model.forward(cache, Rows([row], [TOKENS[at : at + size]]))[0])
        at += size
    return torch.cat(parts)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_every_family_agrees_with_the_plain_decoder(name: str) -> None:
    assert difference(logits_of(fast(name), [60]), logits_of(plain(name), [60])) < 1e-5


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", [None, "BF16", "F16", "Q8_0", "Q4_1"])
def test_every_format_and_instruction_set_agrees(isa: str, format: str | None) -> None:
    cpu.set_instruction_set(isa)
    exact = logits_of(fast("wide qwen2", format, exact_activations=True), [24])
    theirs = logits_of(plain("wide qwen2", format), [24])
    assert difference(exact, theirs) < 1e-5
    # Rounded activations and a float16 cache: the same model, to the rounding of a tiny width.
    assert difference(logits_of(fast("wide qwen2", format), [24]), theirs) < 0.15


@pytest.mark.parametrize("name", MODELS)
def test_every_family_keeps_the_contract(name: str) -> None:
    check_model(fast(name))


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", [None, "BF16", "Q8_0", "Q4_1"])
def test_a_tokens_logits_have_the_same_bits_in_every_pass(isa: str, format: str | None) -> None:
    cpu.set_instruction_set(isa)
    model = fast("wide qwen2", format)
    alone = logits_of(model, [1] * 40)
    for chunks in ([40], [16, 16, 8], [2, 3, 4, 5, 6, 7, 8, 5], [9, 10, 11, 10], [15, 13, 12]):
        assert torch.equal(logits_of(model, chunks), alone), chunks
    for threads in (2, 3):
        model.num_threads = threads
        assert torch.equal(logits_of(model, [16, 16, 8]), alone)


@pytest.mark.parametrize("format", [None, "Q4_1"])
def test_a_sequences_logits_have_the_same_bits_in_every_batch(format: str | None) -> None:
    model = fast("wide qwen2", format)
    cache = model.open_cache()
    rows = [cache.add() for _ in range(4)]
    texts = [TOKENS[i : i + 3 + 5 * i] for i in range(4)]
    for row, text in zip(rows, texts, strict=True):
        model.prefill(cache, row, text)
    new = [TOKENS[40 : 41 + i] for i in range(4)]
    order = [2, 0, 3, 1]
    together = model.forward(cache, Rows([rows[i] for i in order], [new[i] for i in order]))
    for place, i in enumerate(order):
        one = model.open_cache()
        row = one.add()
        model.prefill(one, row, texts[i])
        alone = model.forward(one, Rows([row], [new[i]]))[0]
        assert torch.equal(together[place, : len(new[i])], alone)


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", [None, "F16", "BF16", "Q8_0", "Q4_1"])
def test_sixteen_sequences_step_together_as_each_alone(isa: str, format: str | None) -> None:
    cpu.set_instruction_set(isa)
    model = fast("wide qwen2", format)
    together, alone = model.open_cache(), model.open_cache()
    rows = [together.add() for _ in range(16)]
    for row in rows:
        assert alone.add() == row
        model.prefill(together, row, TOKENS[row : 2 * row + 20])
        model.prefill(alone, row, TOKENS[row : 2 * row + 20])
    for step in range(3):
        new = [[TOKENS[60 + row + step]] for row in rows]
        logits = model.forward(together, Rows(rows, new))
        for row in rows:
            assert torch.equal(model.forward(alone, Rows([row], [new[row]]))[0], logits[row]), row


def test_rejected_tokens_leave_no_trace() -> None:
    model = fast("wide qwen2", "Q8_0")
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, TOKENS[:20])
    model.forward(cache, Rows([row], [TOKENS[50:60]]))
    cache.rollback(row, 20)
    again = model.forward(cache, Rows([row], [TOKENS[20:25]]))[0]
    assert torch.equal(again, logits_of(model, [25])[20:])


def test_a_cache_grows_without_changing_what_it_holds() -> None:
    model = fast("llama, roomy")
    tokens = [TOKENS[i % 97] for i in range(700)]  # the first capacity is 256
    whole = model.open_cache()
    row = whole.add()
    together = model.forward(whole, Rows([row], [tokens]))[0]
    grown = model.open_cache()
    other = grown.add()
    for start in range(0, 699, 50):
        model.extend(grown, other, tokens[start : min(start + 50, 699)])
    assert torch.equal(model.forward(grown, Rows([other], [tokens[699:]]))[0, 0], together[-1])
    assert whole.num_bytes() == 4 * 2 * 2 * 2 * 704 * (8 + 16) // 2  # no more than it took


def test_a_cache_never_writes_beyond_its_memory() -> None:
    model = fast("llama")
    cache = model.open_cache()
    row = cache.add()
    # One pass further than the context's 128 positions.
    logits = model.forward(cache, Rows([row], [TOKENS + TOKENS[:50]]))
    assert bool(logits.isfinite().all())
    assert cache.length(row) == 150


def test_a_closed_row_is_used_again_and_empty() -> None:
    cache = fast("llama").open_cache()
    first, second = cache.add(), cache.add()
    cache.remove(first)
    assert cache.add() == first
    assert cache.length(first) == 0 == cache.length(second)


def test_a_reduced_head_computes_the_frequent_ids_and_those_of_the_text() -> None:
    full, reduced = fast("llama"), fast("llama", num_head_ids=20)
    theirs = logits_of(full, [5])[-1]
    ours = logits_of(reduced, [5])[-1]
    tiles = {0, 1} | {token // 16 for token in TOKENS[:5]}
    wanted = torch.tensor([i // 16 in tiles for i in range(tiny.VOCAB)])
    assert not bool(wanted.all())
    assert torch.equal(ours[wanted], theirs[wanted])
    assert bool((ours[~wanted] == -torch.inf).all())


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_reduced_draft_does_not_change_the_text(temperature: float) -> None:
    model = fast("wide llama", "Q8_0")
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=3, ignore_eos=True)
    alone = Engine(model, None, None).generate([5, 6, 7], params)[0].token_ids
    for draft in (ModelDrafter(fast("llama", num_head_ids=16)), RandomDrafter(tiny.VOCAB)):
        for gamma in (1, 4, 8):
            engine = Engine(model, None, draft, gamma=gamma)
            assert engine.generate([5, 6, 7], params)[0].token_ids == alone


def test_the_time_of_the_passes_is_told_apart() -> None:
    model = fast("llama")
    logits_of(model, [5])
    times = model.take_times()
    assert min(times) > 0
    assert sum(model.take_times()) == 0


def test_the_bytes_of_a_pass_leave_the_embedding_out() -> None:
    model = fast("llama")
    weights = model.weights
    assert (
        model.weight_bytes_per_pass
        < sum(
            matrix.num_bytes
            for matrix in (weights.embedding, weights.head, weights.layers[0].gate.matrix)
        )
        + 2 * 7 * 64 * 64 * 4
    )
    assert fast("llama", num_head_ids=16).weight_bytes_per_pass < model.weight_bytes_per_pass
