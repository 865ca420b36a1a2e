"""The decoder of a GPU beside the plain one; on a CPU with the kernels' torch twins."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.gpu.attention import PAGE
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_cache import GpuCache
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.read import read_folder
from draftsmith.testing import check_model
from tests.kernels.gpu.device import DEVICE
from tests.models.native.test_decoder import MODELS, TOKENS, lively

FAMILIES = ("llama, biases", "llama, wide heads", "yarn", "mistral", "qwen3, biases, tied")


@cache
def fast_and_plain(name: str) -> tuple[GpuDecoder, TorchDecoder]:
    kind, changes = MODELS[name]
    with TemporaryDirectory() as folder:
        lively(kind, **changes).save_pretrained(folder)
        config, weights = read_folder(Path(folder))
    fast = GpuDecoder.from_weights(weights, config, DEVICE, torch.float32, name)
    return fast, TorchDecoder.from_weights(weights, config, DEVICE, name=name)


def ragged(model: LanguageModel) -> list[Tensor]:
    """Logits of two rows in pieces, one of them rolled back on the way."""
    cache = model.open_cache()
    first, second = cache.add(), cache.add()
    model.extend(cache, first, TOKENS[:9])
    found = [model.forward(cache, Rows([second, first], [TOKENS[:1], TOKENS[9:12]]))]
    cache.rollback(first, 10)
    found.append(model.forward(cache, Rows([first, second], [TOKENS[10:12], TOKENS[1:5]])))
    return [found[0][0, :1], found[0][1, :3], found[1][0, :2], found[1][1, :4]]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_the_plain_decoder(name: str) -> None:
    fast, plain = fast_and_plain(name)
    for one, other in zip(ragged(fast), ragged(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_reduced_head_has_the_same_logits_of_fewer_ids() -> None:
    whole = fast_and_plain("qwen3, biases, tied")[0]
    reduced = GpuDecoder.on_weights(whole.weights, whole.config, "reduced", num_head_ids=20)
    for one, other in zip(ragged(reduced), ragged(whole), strict=True):
        assert one.shape[-1] == 20
        assert torch.equal(one, other[:, :20])
    everything = GpuDecoder.on_weights(whole.weights, whole.config, "whole", num_head_ids=10**6)
    assert ragged(everything)[0].shape[-1] == whole.config.vocab_size


def test_the_contract_is_kept() -> None:
    check_model(fast_and_plain("qwen3, biases, tied")[0])


@pytest.mark.skipif(DEVICE.type == "cpu", reason="torch's products on a CPU promise no bits")
def test_a_tokens_logits_have_the_same_bits_in_every_pass() -> None:
    model, _ = fast_and_plain("yarn")
    ids = TOKENS[:12]
    alone, beside, prompt = model.open_cache(), model.open_cache(), model.open_cache()
    row = alone.add()
    want = [model.forward(alone, Rows([row], [[token]]))[0, 0] for token in ids]
    other, row = beside.add(), beside.add()
    found = model.forward(beside, Rows([other, row], [TOKENS[20:25], ids]))[1]
    assert torch.equal(found, torch.stack(want))
    row = prompt.add()
    model.extend(prompt, row, ids[:-1])
    assert torch.equal(model.forward(prompt, Rows([row], [ids[-1:]]))[0, 0], want[-1])


def test_a_draft_does_not_change_the_text() -> None:
    model, _ = fast_and_plain("qwen3, biases, tied")
    for params in (
        SamplingParams(max_tokens=6, ignore_eos=True),
        SamplingParams(max_tokens=6, ignore_eos=True, temperature=0.9, seed=4),
    ):
        plain = Engine(model).generate([TOKENS[:5], TOKENS[9:12]], params)
        drafted = Engine(model, draft=ModelDrafter(model), gamma=3).generate(
            [TOKENS[:5], TOKENS[9:12]], params
        )
        assert [one.token_ids for one in drafted] == [one.token_ids for one in plain]
        assert all(one.statistics.alpha == 1 for one in drafted)


def test_pages_go_back_to_the_pool_and_are_used_again() -> None:
    model, _ = fast_and_plain("yarn")
    pool = model.pool
    before = pool.num_free_pages
    cache = model.open_cache()
    rows = [cache.add(), cache.add()]
    for row in rows:
        cache.reserve(row, PAGE + 1)
    pool.check_integrity([cache.pages(row) for row in rows])
    assert pool.num_free_pages == before - 4
    cache.remove(rows[0])
    pool.check_integrity([cache.pages(rows[1])])
    del cache
    assert pool.num_free_pages == before
    pool.check_integrity([])


def test_a_pool_grows_without_changing_what_it_holds() -> None:
    model = GpuDecoder.on_weights(
        fast_and_plain("yarn")[0].weights, fast_and_plain("yarn")[0].config
    )
    cache: GpuCache = model.open_cache()
    row = cache.add()
    model.extend(cache, row, TOKENS[:7])
    version, slots = model.pool.store.version, [cache.add() for _ in range(70)]
    for one in slots:
        cache.reserve(one, 2 * PAGE)
    assert model.pool.store.version > version
    found = model.forward(cache, Rows([row], [TOKENS[7:9]]))
    fresh = model.open_cache()
    fresh.add()
    want = model.forward(fresh, Rows([0], [TOKENS[:9]]))[:, -2:]
    torch.testing.assert_close(found, want)
    model.pool.check_integrity(
        [c.pages(r) for c, r in [*((cache, s) for s in (row, *slots)), (fresh, 0)]]
    )


def test_what_grew_amid_a_pass_is_written_to_between_passes() -> None:
    store = PageStore(fast_and_plain("yarn")[0].config, DEVICE, torch.float32)
    with torch.inference_mode():
        store.grow_slots()
        assert store.has_room(1)
        store.grow()
    store.write_table(65, 0, [2, 3])
    store.copy_page(2, 3)
    assert store.tables[65, :2].tolist() == [2, 3]


def test_a_sequence_beyond_the_context_is_refused() -> None:
    model, _ = fast_and_plain("yarn")
    cache = model.open_cache()
    with pytest.raises(InvalidRequestError, match=f"context of {model.config.context_length}"):
        cache.reserve(cache.add(), model.config.context_length + 2 * PAGE)


def test_a_pass_of_many_rows_is_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fast_and_plain("yarn")
    batch = [TOKENS[:7], TOKENS[9:20], TOKENS[3:4]]

    def logits() -> list[Tensor]:
        cache = model.open_cache()
        rows = [cache.add() for _ in batch]
        found = model.forward(cache, Rows(rows, batch))
        assert [cache.length(row) for row in rows] == [len(tokens) for tokens in batch]
        return [found[place, : len(tokens)] for place, tokens in enumerate(batch)]

    whole = logits()
    monkeypatch.setattr("draftsmith.models.native.gpu.MOST_ROWS", 4)
    for one, other in zip(logits(), whole, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_gpu_writes_what_the_first_does() -> None:
    # One after the other: what is captured first must not decide where the rest is captured.
    kind, changes = MODELS["qwen3, biases, tied"]
    with TemporaryDirectory() as folder:
        lively(kind, **changes).save_pretrained(folder)
        config, weights = read_folder(Path(folder))
    params = SamplingParams(max_tokens=16, temperature=0.9, seed=3, ignore_eos=True)
    texts = []
    for number in range(2):
        device = torch.device("cuda", number)
        model = GpuDecoder.from_weights(weights, config, device, torch.float32)
        engines = Engine(model), Engine(model, draft=ModelDrafter(model), gamma=3)
        texts += [engine.generate(TOKENS[:9], params)[0].token_ids for engine in engines]
    assert all(text == texts[0] for text in texts)
