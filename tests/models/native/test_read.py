"""Weights from safetensors and from GGUF files: the right ones, all of them, and no other."""
# transformers' and gguf's objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError, ModelNotFoundError
from draftsmith.models.contract import Rows
from draftsmith.models.hf.gguf import load_gguf_model
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.memory import available_memory, check_fits
from draftsmith.models.native.names import GGUF
from draftsmith.models.native.read import (
    native_architecture,
    needs_native_reading,
    read_folder,
    read_gguf,
)
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.reference import local_path, resolve
from tests import tiny
from tests.models.native.test_decoder import TOKENS, expected_logits, lively, relative_error

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


# --- GGUF -------------------------------------------------------------------------------------


def _permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's own conversion: the halves of a head are interleaved."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write_gguf(path: Path, model: Any, kind: Kind = Kind.F32, **options: Any) -> None:
    """Convert a model as llama.cpp does; its own matrices become what the file's blocks mean."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_eos_token_id(tiny.EOS)
    if config.model_type == "qwen3":
        writer.add_key_length(config.head_dim)
    names = gguf.get_tensor_name_map(_arch(config.model_type), config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        base, _, suffix = name.rpartition(".")
        values = parameter.detach().numpy()
        here = kind if values.ndim == 2 else Kind.F32
        raw = gguf.quants.quantize(values, here)
        parameter.data = torch.from_numpy(gguf.dequantize(raw, here).reshape(values.shape))
        if config.model_type == "llama" and "q_proj" in name:
            raw = _permuted(raw, config.num_attention_heads)
        if config.model_type == "llama" and "k_proj" in name:
            raw = _permuted(raw, config.num_key_value_heads)
        writer.add_tensor(f"{names.get_name(base)}.{suffix}", raw, raw_dtype=here)
    for name, (values, here) in options.items():
        writer.add_tensor(name.replace("__", "."), values, raw_dtype=here)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _arch(name: str) -> Any:
    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)


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


def test_files_that_transformers_would_misread_are_known(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    factors = torch.ones(4).numpy()
    cases: tuple[tuple[str, dict[str, Any], bool], ...] = (
        ("llama", {}, False),
        ("llama", {"rope_freqs__weight": (factors, Kind.F32)}, True),
        ("qwen2", {}, False),
    )
    for kind, options, is_known in cases:
        write_gguf(path, lively(kind), **options)
        assert needs_native_reading(path) is is_known, (kind, options)
    write_gguf(path, lively("llama", attention_bias=True))
    assert needs_native_reading(path)


def test_quantised_weights_become_floats_but_are_not_quantised_again(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, lively("llama"), Kind.Q4_0)
    stored, dense = read_gguf(path), read_gguf(path, "F32")
    assert dense[1].head.format == "F32"
    assert torch.equal(logits_of(*stored), logits_of(*dense))
    with pytest.raises(InvalidRequestError, match=r"'token_embd\.weight' again.*Q4_0"):
        read_gguf(path, "Q8_0")


def test_a_tensor_type_without_a_kernel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    blocks = np.zeros((32, 36), np.uint8)
    write_gguf(path, lively("llama"), blk__0__extra__weight=(blocks, Kind.IQ4_NL))
    with pytest.raises(ModelFormatError, match=r"blk\.0\.extra\.weight.* unknown"):
        read_gguf(path)
    model = lively("llama", num_hidden_layers=1)
    del model.model.layers[0].mlp.up_proj
    write_gguf(path, model, blk__0__ffn_up__weight=(np.zeros((64, 18), np.uint8), Kind.IQ4_NL))
    message = r"'blk\.0\.ffn_up\.weight' is IQ4_NL.*Q4_K"
    with pytest.raises(ModelFormatError, match=message):
        read_gguf(path)
    assert native_architecture(path) is None


def test_a_corrupt_block_is_named_with_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = lively("llama", num_hidden_layers=1)
    del model.model.layers[0].mlp.up_proj
    blocks = np.full((64, 34), 0x7F, np.uint8)  # the scales are NaN
    write_gguf(path, model, blk__0__ffn_up__weight=(blocks, Kind.Q8_0))
    with pytest.raises(ModelFormatError, match=r"tensor 'blk\.0\.ffn_up\.weight' is corrupt"):
        read_gguf(path)


def test_a_file_without_an_embedding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = lively("llama")
    del model.model.embed_tokens
    write_gguf(path, model)
    with pytest.raises(ModelFormatError, match=r"lacks tensor 'token_embd\.weight'"):
        read_gguf(path)


def test_names_of_both_kinds_cover_the_same_parts(saved: Path) -> None:
    config, _ = read_folder(saved)
    assert len(GGUF.shapes(config)) == len(load_file(saved / "model.safetensors"))


# --- which models -----------------------------------------------------------------------------


def test_families_are_told_from_their_files(
    saved: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    assert native_architecture(saved) == "llama"
    assert native_architecture(changed(hidden_act="gelu")) is None
    write_gguf(tmp_path / "model.gguf", lively("qwen2"))
    assert native_architecture(tmp_path / "model.gguf") == "qwen2"
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert native_architecture(tmp_path / "broken.gguf") is None
    assert native_architecture({"model_type": "gpt2"}) is None
    with pytest.raises(ModelNotFoundError):
        native_architecture(tmp_path / "none.gguf")


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_a_real_file_gives_the_logits_of_transformers() -> None:
    path = local_path(resolve("smollm2-135m-instruct"))
    assert path is not None
    theirs = load_gguf_model(path, torch.float32)
    config, weights = read_gguf(path)
    error = relative_error(logits_of(config, weights), expected_logits(theirs, TOKENS))
    assert error <= 1e-4
    assert config.eos_token_ids == (theirs.config.eos_token_id,)
    assert (config.vocab_size, config.context_length) == (49152, 8192)
