"""Weights from safetensors: the right ones, all of them, and no other."""
# transformers' and gguf's objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError, ModelNotFoundError
from draftsmith.models.contract import Rows
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.memory import available_memory, check_fits
from draftsmith.models.native.read import (
    native_architecture,
    read_folder,
)
from draftsmith.models.native.weights import DecoderWeights
from tests import tiny
from tests.models.native.test_decoder import TOKENS, lively, relative_error

Tensors = dict[str, Tensor]


def logits_of(config: DecoderConfig, weights: DecoderWeights) -> Tensor:
    model = TorchDecoder.from_weights(weights, config)
    cache = model.open_cache()
    return model.forward(cache, Rows([cache.add()], [TOKENS]))[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    lively("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def changed(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the checkpoint whose tensors, or whose config, have been tampered with."""

    def change(tamper: Callable[[Tensors], object] = len, **config: object) -> Path:
        tensors = load_file(saved / "model.safetensors")
        tamper(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        old = json.loads((saved / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(old | config))
        return tmp_path

    return change


# --- safetensors ------------------------------------------------------------------------------


def test_the_stored_format_is_kept(changed: Callable[..., Path]) -> None:
    def halve(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].bfloat16()

    _, weights = read_folder(changed(halve))
    assert weights.layers[1].down.matrix.format == "BF16"
    assert weights.layers[1].attention_norm.dtype == torch.float32


@pytest.mark.parametrize(("format", "error"), [("F32", 0), ("BF16", 0.03), ("F16", 0.003)])
def test_matrices_are_converted_to_the_format_asked_for(
    saved: Path, format: str, error: float
) -> None:
    plain = logits_of(*read_folder(saved))
    config, weights = read_folder(saved, format)
    assert {weights.embedding.format, weights.layers[0].query.matrix.format} == {format}
    assert weights.embedding.num_bytes == tiny.VOCAB * 32 * (4 if format == "F32" else 2)
    assert relative_error(logits_of(config, weights), plain) <= error


@pytest.mark.parametrize("format", ["Q8_0", "Q4_1"])
def test_a_float_checkpoint_is_quantised(saved: Path, format: str) -> None:
    plain = logits_of(*read_folder(saved))
    config, weights = read_folder(saved, format)
    assert weights.embedding.format == format
    assert 0 < relative_error(logits_of(config, weights), plain) < (0.1 if format == "Q8_0" else 2)


def test_a_head_that_is_tied_is_the_embedding(changed: Callable[..., Path]) -> None:
    folder = changed(lambda tensors: tensors.pop("lm_head.weight"), tie_word_embeddings=True)
    config, weights = read_folder(folder)
    assert config.is_tied
    assert weights.head is weights.embedding


def test_a_head_that_is_a_copy_is_tied_and_another_is_not(changed: Callable[..., Path]) -> None:
    def copy(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    assert read_folder(changed(copy, tie_word_embeddings=True))[0].is_tied
    config, weights = read_folder(changed(tie_word_embeddings=True))
    assert not config.is_tied
    assert not torch.equal(weights.head.dequantise(), weights.embedding.dequantise())


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def put(name: str, *shape: int) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: torch.zeros(*shape)})


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (drop("model.layers.1.mlp.up_proj.weight"), r"lacks .*layers\.1\.mlp\.up_proj"),
        (drop("lm_head.weight"), r"lacks .*lm_head"),
        (put("model.layers.2.mlp.up_proj.weight", 64, 32), r"layers\.2\.mlp.* unknown"),
        (put("model.layers.0.self_attn.q_proj.bias", 32), r"q_proj\.bias.* unknown"),
        (put("model.norm.weight", 31), r"model\.norm.* shape \(31,\), .* means \(32,\)"),
        (put("model.embed_tokens.weight", 96, 32, 1), r"embed_tokens.* shape \(96, 32, 1\)"),
    ],
)
def test_a_tensor_that_is_missing_unknown_or_misshapen_is_named(
    changed: Callable[..., Path], tamper: Callable[[Tensors], object], message: str
) -> None:
    folder = changed(tamper)
    with pytest.raises(ModelFormatError, match=message) as caught:
        read_folder(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_biases_that_the_config_promises_must_be_there(changed: Callable[..., Path]) -> None:
    with pytest.raises(ModelFormatError, match=r"lacks .*q_proj\.bias"):
        read_folder(changed(attention_bias=True))


def test_frequencies_in_an_old_checkpoint_are_passed_over(changed: Callable[..., Path]) -> None:
    old = changed(put("model.layers.0.self_attn.rotary_emb.inv_freq", 4))
    assert torch.equal(logits_of(*read_folder(old)), logits_of(*read_folder(changed())))


def test_a_config_that_is_no_json_is_named(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"config\.json is not JSON"):
        read_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelFormatError, match=r"no config\.json"):
        read_folder(folder)


def test_an_unknown_format_is_refused(saved: Path) -> None:
    with pytest.raises(InvalidRequestError, match="got 'Q3_K'"):
        read_folder(saved, "Q3_K")


# --- memory -----------------------------------------------------------------------------------


def test_a_model_larger_than_memory_is_refused_with_both_sizes() -> None:
    with pytest.raises(ModelFormatError, match=r"need 3\.1 GB .* 3\.0 GB are available"):
        check_fits(3_100_000_000, 3_000_000_000)
    check_fits(3_000_000_000, 3_000_000_000)
    check_fits(3_000_000_000, None)


def test_a_file_is_measured_before_it_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_bytes = sum(t.nbytes for t in load_file(saved / "model.safetensors").values())
    where = "draftsmith.models.native.read.available_memory"
    monkeypatch.setattr(where, lambda: num_bytes - 1)
    with pytest.raises(ModelFormatError, match="of memory"):
        read_folder(saved)
    read_folder(saved, "Q8_0")
    monkeypatch.setattr(where, lambda: num_bytes)
    read_folder(saved)


def test_the_memory_of_this_machine_is_known_or_none() -> None:
    memory = available_memory()
    assert memory is None or memory > 10_000_000


# --- which models -----------------------------------------------------------------------------


def test_families_are_told_from_their_files(
    saved: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    assert native_architecture(saved) == "llama"
    assert native_architecture(changed(hidden_act="gelu")) is None
    assert native_architecture({"model_type": "gpt2"}) is None
    with pytest.raises(ModelNotFoundError):
        native_architecture(tmp_path / "none")
