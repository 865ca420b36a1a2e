"""Weights from GGUF files: the right ones, all of them, and no other."""
# transformers' and gguf's objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.contract import Rows
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.hf.gguf_model import load_gguf_model
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.reference import local_path, resolve
from tests import tiny
from tests.models.gguf.files import write_gguf
from tests.models.native.test_decoder import TOKENS, expected_logits, lively, relative_error


def logits_of(config: DecoderConfig, weights: DecoderWeights) -> Tensor:
    model = TorchDecoder.from_weights(weights, config)
    cache = model.open_cache()
    return model.forward(cache, Rows([cache.add()], [TOKENS]))[0]


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_a_gguf_file_gives_the_logits_of_its_weights(
    tmp_path: Path, family: str, changes: dict[str, Any], kind: Kind
) -> None:
    model = lively(family, **changes)
    write_gguf(tmp_path / "model.gguf", model, kind)
    config, weights = read_gguf(tmp_path / "model.gguf")
    assert config.eos_token_ids == (tiny.EOS,)
    assert config.is_tied == (family == "qwen2")
    assert weights.layers[0].key.matrix.format == kind.name
    assert relative_error(logits_of(config, weights), expected_logits(model, TOKENS)) <= 1e-4
    table = model.get_input_embeddings().weight
    assert torch.equal(weights.embedding.dequantise(), table)


def test_rope_factors_of_a_file_are_llama3_scaling(tmp_path: Path) -> None:
    options = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = options | {"rope_type": "llama3", "rope_theta": 50.0}
    scaled = lively("llama", rope_parameters=rope | {"original_max_position_embeddings": 32})
    plain = 50.0 ** -(torch.arange(0, 8, 2) / 8)
    factors = plain / scaled.model.rotary_emb.inv_freq
    assert factors.max() > 1
    path = tmp_path / "model.gguf"
    write_gguf(path, scaled, rope_freqs__weight=(factors.numpy(), Kind.F32))
    error = relative_error(logits_of(*read_gguf(path)), expected_logits(scaled, TOKENS))
    assert error <= 1e-4


def test_quantised_weights_become_floats_but_are_not_quantised_again(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, lively("llama"), Kind.Q4_0)
    stored, dense = read_gguf(path), read_gguf(path, "F32")
    assert dense[1].head.format == "F32"
    assert torch.equal(logits_of(*stored), logits_of(*dense))
    with pytest.raises(InvalidRequestError, match=r"'token_embd\.weight' again.*Q4_0"):
        read_gguf(path, "Q8_0")
    rule = f"dtype must be auto, .* for {path}, whose weights are rounded already, got int8: leave"
    with pytest.raises(InvalidRequestError, match=rule):
        load_model(str(path), ModelSettings("int8", device="cpu"))


def with_blocks(path: Path, blocks: np.ndarray, kind: Kind) -> Path:
    """A model of one layer, one matrix of which is made of these blocks."""
    model = lively("llama", num_hidden_layers=1)
    del model.model.layers[0].mlp.up_proj
    write_gguf(path, model, blk__0__ffn_up__weight=(blocks, kind))
    return path


def test_a_matrix_of_a_type_without_a_kernel_keeps_every_value(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (64, 18), dtype=np.uint8)
    blocks[:, 1] = 0x24  # scales of about 0.02
    path = with_blocks(tmp_path / "model.gguf", blocks, Kind.IQ4_NL)
    matrix = read_gguf(path)[1].layers[0].up.matrix
    assert matrix.format == "Q8_0"
    assert np.array_equal(matrix.dequantise().numpy(), gguf.dequantize(blocks, Kind.IQ4_NL))
    assert read_gguf(path, "F32")[1].layers[0].up.matrix.format == "F32"


def test_a_tensor_type_that_nobody_can_read_is_named(tmp_path: Path) -> None:
    path = with_blocks(tmp_path / "model.gguf", np.zeros((64, 32), np.int8), Kind.I8)
    with pytest.raises(ModelFormatError, match=r"'blk\.0\.ffn_up\.weight' is I8.*Q4_K"):
        read_gguf(path)


def test_a_corrupt_block_is_named_with_its_tensor(tmp_path: Path) -> None:
    blocks = np.full((64, 34), 0x7F, np.uint8)  # the scales are NaN
    path = with_blocks(tmp_path / "model.gguf", blocks, Kind.Q8_0)
    with pytest.raises(ModelFormatError, match=r"tensor 'blk\.0\.ffn_up\.weight' is corrupt"):
        read_gguf(path)


def test_a_file_without_an_embedding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = lively("llama")
    del model.model.embed_tokens
    write_gguf(path, model)
    with pytest.raises(ModelFormatError, match=r"lacks tensor 'token_embd\.weight'"):
        read_gguf(path)


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_a_real_file_gives_the_logits_of_transformers() -> None:
    path = local_path(resolve("smollm2-135m-instruct"))
    assert path is not None
    theirs = load_gguf_model(path, torch.float32)
    config, weights = read_gguf(path)
    error = relative_error(logits_of(config, weights), expected_logits(theirs, TOKENS))
    assert error <= 1e-4
    assert config.eos_token_ids == tuple(theirs.config.eos_token_id) == (2, 0, 4)
    assert (config.vocab_size, config.context_length) == (49152, 8192)
