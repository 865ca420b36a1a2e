"""Numbers that are no numbers, inside a pass: they stay in the rows that look at them.

A wrong draft may overflow the cache, or be a token whose row is NaN. The rows before it, the
other sequences, and what is fed after a rollback have the bits that they have without it.
"""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith import Draft, Drafter, Engine, SamplingParams
from draftsmith.kernels.cpu import library as cpu
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.t5 import NativeT5, read_plain_t5, read_t5
from draftsmith.models.native.weights import Projection
from tests import tiny

needs_library = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

POISON = 90
"""A token that the texts below hold nowhere else."""
TEXT = [(7 * i * i + 3 * i + 5) % 89 for i in range(60)]
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "tie_word_embeddings": False}
KINDS = {"llama": "llama", "mistral-sliding": "mistral-sliding", "qwen3": "qwen3"}
POISONS = {"nan": torch.nan, "inf": torch.inf, "overflow": 0.0}
FAST = [
    *product(cpu.instruction_sets(), ("Q8_0", "Q4_1"), ("llama", "mistral-sliding"), POISONS),
    *product(cpu.instruction_sets(), ("F32", "BF16"), ("llama", "mistral-sliding"), ("nan", "inf")),
]


@pytest.fixture(autouse=True)
def best_instructions() -> Iterator[None]:
    yield
    if cpu.library() is not None:
        cpu.set_instruction_set(None)


@cache
def read(kind: str, format: str | None) -> tuple[Any, Any]:
    with TemporaryDirectory() as folder:
        tiny.raw_model(kind, 3, **WIDE).save_pretrained(folder)
        return read_folder(Path(folder), format)


@cache
def poisoned(kind: str, format: str | None, poison: str) -> tuple[Any, Any]:
    """A model in which one token is poison: NaN or infinity itself, or too large a value.

    The overflow is of the float16 cache alone: the first element, which only that token has, is
    blown up by the projection to values, beyond 65504.
    """
    config, weights = read(kind, format)
    table = weights.embedding.dequantise()
    if poison != "overflow":
        table[POISON, 5] = POISONS[poison]
        return config, replace(weights, embedding=Matrix.from_float(table, "F32"))
    table[:, 0], table[POISON] = 0.0, 0.0
    table[POISON, 0] = 1.0

    def changed(projection: Projection, change: Callable[[Tensor], object]) -> Projection:
        dense = projection.matrix.dequantise()
        change(dense)
        return Projection(Matrix.from_float(dense, format or "F32"), projection.bias)

    layers = [
        replace(
            layer,
            value=changed(layer.value, lambda dense: dense[:, 0].fill_(3e4)),  # 2.4e5 in all
            output=changed(layer.output, lambda dense: dense[0].zero_()),
            down=changed(layer.down, lambda dense: dense[0].zero_()),
        )
        for layer in weights.layers
    ]
    table = Matrix.from_float(table, "F32")
    return config, replace(weights, embedding=table, layers=tuple(layers))


def bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def alone(model: LanguageModel, text: list[int]) -> Tensor:
    """Logits of a text, one token a pass, in a cache of its own."""
    cache = model.open_cache()
    row = cache.add()
    return torch.cat([model.forward(cache, Rows([row], [[token]]))[0] for token in text])


def reach_of(model: CpuDecoder | TorchDecoder) -> int:
    """How many tokens after it a token can still move, by its windows."""
    if isinstance(model, TorchDecoder):  # gives a text up
        return 1000
    windows = [window or 1000 for window in model.config.windows]
    return sum(window - 1 for window in windows)


def check(model: CpuDecoder | TorchDecoder, *, is_same: Any = bits) -> None:
    """Poison as a draft at every place of passes of 2 to 12 rows, in a batch, and rolled back."""
    clean = alone(model, TEXT)
    assert bool(clean.isfinite().all())
    for width in (2, 4, 8, 12):
        for place in {0, 1, width // 2, width - 1}:
            cache = model.open_cache()
            rows = [cache.add() for _ in range(3)]
            for row, past in zip(rows, (3, 18, 31), strict=True):
                model.forward(cache, Rows([row], [TEXT[:past]]))
            drafted = TEXT[18 : 18 + width]
            drafted[place] = POISON
            beside = [TEXT[3:5], drafted, TEXT[31:32]]
            logits = model.forward(cache, Rows(rows, beside))
            assert is_same(logits[1, :place], clean[18 : 18 + place]), (width, place)
            end = min(width, place + reach_of(model) + 1)
            assert bool(logits[1, place:end].isnan().all()), (width, place)
            assert is_same(logits[1, end:width], clean[18 + end : 18 + width])
            assert is_same(logits[0, :2], clean[3:5])
            assert is_same(logits[2, :1], clean[31:32])
            # Rolled back, it is no more: neither alone nor beside a longer text.
            cache.rollback(rows[1], 18 + place)
            rest = TEXT[18 + place : 21 + place]
            logits = model.forward(cache, Rows(rows[1:], [rest, TEXT[32:40]]))
            assert is_same(logits[0, :3], clean[18 + place : 21 + place]), (width, place)
            assert is_same(logits[1, :8], clean[32:40])


@needs_library
@pytest.mark.parametrize(("isa", "format", "kind", "poison"), FAST)
def test_poison_stays_in_its_rows(isa: str, format: str, kind: str, poison: str) -> None:
    cpu.set_instruction_set(isa)
    config, weights = poisoned(kind, format, poison)
    check(CpuDecoder(weights, config))


@needs_library
@pytest.mark.parametrize("threads", [2, 3])
def test_poison_stays_in_its_rows_on_threads(threads: int) -> None:
    config, weights = poisoned("llama", "Q8_0", "overflow")
    check(CpuDecoder(weights, config, threads=threads))


@needs_library
@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", ["F32", "Q8_0"])
def test_a_window_that_has_passed_poison_is_clean(isa: str, format: str) -> None:
    cpu.set_instruction_set(isa)
    config, weights = poisoned("mistral-sliding", format, "nan")
    model = CpuDecoder(weights, config)
    reach = reach_of(model)
    text = [POISON, *TEXT]
    clean = alone(model, [88, *TEXT])
    for widths in ([1] * 61, [61], [16, 16, 16, 13], [3, 5, 7, 9, 11, 13, 13]):
        cache, parts, at = model.open_cache(), [], 0
        row = cache.add()
        for width in widths:
            parts.append(model.forward(cache, Rows([row], [text[at : at + width]]))[0])
            at += width
        logits = torch.cat(parts)
        assert bool(logits[: reach + 1].isnan().all())
        assert bits(logits[reach + 1 :], clean[reach + 1 :]), widths


def close(one: Tensor, other: Tensor) -> bool:
    """The plain decoder promises no bits in other company."""
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("kind", "poison"), [*product(KINDS, ("nan", "inf"))])
def test_poison_stays_in_the_rows_of_the_plain_decoder(kind: str, poison: str) -> None:
    config, weights = poisoned(kind, None, poison)
    check(TorchDecoder.from_weights(weights, config), is_same=close)


def test_a_long_prompt_of_the_plain_decoder_is_lost_from_its_poison_on() -> None:
    """A prompt is looked at layer by layer: what all layers wrote would be too much to keep."""
    config, weights = poisoned("llama", None, "nan")
    model = TorchDecoder.from_weights(weights, config)
    cache = model.open_cache()
    rows = [cache.add(), cache.add()]
    poison = [*TEXT[:40], POISON, *TEXT[41:]]
    logits = model.forward(cache, Rows(rows, [poison, TEXT]))
    clean = alone(model, TEXT)
    assert close(logits[0, :40], clean[:40])
    assert bool(logits[0, 40:].isnan().all())
    assert close(logits[1], clean)


def test_an_overflow_stays_in_the_rows_of_the_plain_decoder() -> None:
    """In float16, where its cache can overflow."""
    config, weights = poisoned("llama", None, "overflow")
    model = TorchDecoder.from_weights(weights, config, dtype=torch.float16)
    cache = model.open_cache()
    row = cache.add()
    drafted = [*TEXT[:4], POISON, *TEXT[5:8]]
    logits = model.forward(cache, Rows([row], [drafted]))[0]
    expected = alone(model, TEXT[:4])
    assert torch.allclose(logits[:4].float(), expected.float(), atol=2e-2)
    assert bool(logits[4:].isnan().all())
    cache.rollback(row, 4)
    again = model.forward(cache, Rows([row], [TEXT[4:8]]))[0]
    assert bool(again.isfinite().all())


@pytest.mark.parametrize("format", ["plain", None, "Q8_0"])
def test_poison_stays_in_the_rows_of_a_t5(format: str | None, tmp_path: Path) -> None:
    if format != "plain" and cpu.library() is None:
        pytest.skip("installed without the kernels")
    raw = tiny.raw_model("t5", tie_word_embeddings=False)
    head = torch.randn(raw.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    raw.lm_head.weight = torch.nn.Parameter(head * 0.25)
    raw.save_pretrained(tmp_path)
    model: NativeT5 = read_plain_t5(tmp_path) if format == "plain" else read_t5(tmp_path, format)
    table = model.weights.embedding.rows(range(tiny.VOCAB))
    table[POISON, 5] = torch.nan
    model.weights = replace(model.weights, embedding=Matrix.from_float(table, "F32"))

    def opened() -> tuple[Any, list[int]]:
        cache = model.open_cache()
        rows = [cache.add(), cache.add()]
        for row in rows:
            model.encode(cache, row, TEXT[:9])
        return cache, rows

    cache, rows = opened()
    clean = model.forward(cache, Rows(rows[:1], [TEXT[:10]]))[0]
    cache, rows = opened()
    drafted = [*TEXT[:4], POISON, *TEXT[5:10]]
    logits = model.forward(cache, Rows(rows, [drafted, TEXT[:10]]))
    assert bits(logits[0, :4], clean[:4])
    assert bool(logits[0, 4:].isnan().all())
    assert bits(logits[1], clean)
    cache.rollback(rows[0], 4)
    assert bits(model.forward(cache, Rows(rows[:1], [TEXT[4:10]]))[0], clean[4:])


class Always(Drafter):
    """One wrong token, over and over."""

    def propose(self, context: Any) -> Draft:
        tokens = [[POISON] * sequence.gamma for sequence in context.sequences]
        return Draft.certain(tokens, context.device)


@needs_library
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("poison", POISONS)
def test_a_text_does_not_know_of_a_wrong_draft(poison: str, temperature: float) -> None:
    config, weights = poisoned("llama", "Q8_0", poison)
    model = CpuDecoder(weights, config)
    params = SamplingParams(
        max_tokens=40, ignore_eos=True, banned_token_ids=(POISON,), temperature=temperature, seed=7
    )
    plain = Engine(model).generate([5, 6, 7], params)[0]
    assert plain.error is None
    for gamma in (1, 3, 8):
        drafted = Engine(model, draft=Always(), gamma=gamma).generate([5, 6, 7], params)[0]
        assert (drafted.token_ids, drafted.error) == (plain.token_ids, None)


@needs_library
def test_a_text_that_reads_poison_ends_with_an_error() -> None:
    config, weights = poisoned("llama", "Q8_0", "nan")
    results = Engine(CpuDecoder(weights, config)).generate(
        [[5, POISON, 7], [5, 6, 7]], SamplingParams(max_tokens=4, ignore_eos=True)
    )
    assert "NaN" in (results[0].error or "")
    assert (results[1].error, len(results[1].token_ids)) == (None, 4)
