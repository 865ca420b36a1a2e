"""The plain decoder beside transformers, family by family, scaling by scaling."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import Rows
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.torch_cache import TorchCache
from draftsmith.testing import check_model
from tests import tiny

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 16, "num_key_value_heads": 1}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "linear": ("llama", {"rope_parameters": LINEAR}),
    "yarn": ("qwen2", {"rope_parameters": YARN}),
    "mistral": ("mistral-sliding", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, sliding in one layer": ("qwen2", SLIDING),
    "qwen3": ("qwen3", {}),
    "qwen3, biases, tied": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
}
TOKENS = [(7 * i * i + 3 * i + 5) % tiny.VOCAB for i in range(60)]


def lively(kind: str, **changes: Any) -> Any:
    """A tiny model whose norms and biases matter, too."""
    model = tiny.raw_model(kind, 3, **changes)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@cache
def theirs(name: str) -> Any:
    kind, changes = MODELS[name]
    return lively(kind, **changes)


@cache
def ours(name: str, dtype: torch.dtype = torch.float32) -> TorchDecoder:
    with TemporaryDirectory() as folder:
        theirs(name).save_pretrained(folder)
        config, weights = read_folder(Path(folder))
    return TorchDecoder.from_weights(weights, config, dtype=dtype, name=name)


@torch.inference_mode()
def expected_logits(model: Any, tokens: list[int]) -> Tensor:
    return model(torch.tensor([tokens])).logits[0]


def relative_error(logits: Tensor, expected: Tensor) -> float:
    return float((logits.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_one_pass_gives_the_logits_of_transformers(name: str) -> None:
    model = ours(name)
    cache = model.open_cache()
    logits = model.forward(cache, Rows([cache.add()], [TOKENS]))[0]
    assert relative_error(logits, expected_logits(theirs(name), TOKENS)) <= 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_ragged_batch_token_by_token_gives_the_logits_of_transformers(name: str) -> None:
    model = ours(name)
    cache = model.open_cache()
    texts = [TOKENS[:20], TOKENS[5:40]]
    rows = [cache.add(), cache.add()]
    model.prefill(cache, rows[1], texts[1][:15])
    ends = zip(texts[0], texts[1][15:], strict=True)
    passes = [model.forward(cache, Rows(rows, [[one], [two]])) for one, two in ends]
    for line, text in enumerate(texts):
        logits = torch.cat([one[line] for one in passes])
        assert relative_error(logits, expected_logits(theirs(name), text)[-20:]) <= 1e-4


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2, sliding in one layer", "qwen3"])
def test_the_contract_is_kept(name: str) -> None:
    check_model(ours(name))


def test_greedy_text_is_that_of_transformers() -> None:
    prompt = TOKENS[:9]
    result = Engine(ours("qwen2")).generate(prompt, SamplingParams(max_tokens=24))[0]
    ids = torch.tensor([prompt])
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 24}
    text = theirs("qwen2").generate(ids, **options)[0, len(prompt) :].tolist()
    assert list(result.token_ids) == text
    assert len(set(text)) >= 4, "the same over and over"


@pytest.mark.parametrize("name", ["mistral", "qwen2, sliding in one layer"])
def test_the_window_matters(name: str) -> None:
    config = ours(name).config
    assert [window for window in config.windows if window] in ([6, 6], [5])
    model = ours(name)
    cache = model.open_cache()
    changed = [TOKENS[0] + 1, *TOKENS[1:]]
    rows = [cache.add(), cache.add()]
    logits = model.forward(cache, Rows(rows, [TOKENS, changed]))
    is_same = (logits[0] - logits[1]).abs().amax(-1) < 1e-6
    # Two layers of a window of 6 reach 10 tokens back; a full layer reaches all.
    assert is_same.any() == (name == "mistral")
    assert not is_same[:5].any()


def test_bfloat16_is_near_float32() -> None:
    model = ours("qwen3", torch.bfloat16)
    cache = model.open_cache()
    logits = model.forward(cache, Rows([cache.add()], [TOKENS]))[0]
    assert logits.dtype == torch.bfloat16
    assert relative_error(logits, expected_logits(theirs("qwen3"), TOKENS)) < 0.05


def test_a_cache_grows_beyond_its_first_slots_and_rows() -> None:
    model = ours("llama")
    cache = model.open_cache()
    rows = [cache.add() for _ in range(3)]
    model.extend(cache, rows[0], TOKENS[:30])
    model.prefill(cache, rows[2], TOKENS * 5)
    logits = model.forward(cache, Rows([rows[0], rows[2]], [TOKENS[30:40], TOKENS[:10]]))
    assert relative_error(logits[0], expected_logits(theirs("llama"), TOKENS[:40])[30:]) <= 1e-4
    long = expected_logits(theirs("llama"), TOKENS * 5 + TOKENS[:10])[-10:]
    assert relative_error(logits[1], long) <= 1e-4
    assert cache.length(rows[2]) == 310


def test_a_closed_row_is_the_next_to_open() -> None:
    cache = ours("llama").open_cache()
    assert isinstance(cache, TorchCache)
    assert [cache.add(), cache.add(), cache.add()] == [0, 1, 2]
    cache.remove(1)
    assert cache.add() == 1
