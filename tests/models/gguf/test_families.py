"""Every family and scaling of GGUF files: one model, by whichever implementation it runs."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.common import RESULTS
from benchmarks.gguf_grid import SAMPLED_IDS, TOLERANCE, write_point
from benchmarks.gguf_grid import TOKENS as GRID_TOKENS
from benchmarks.gguf_models import FAMILIES, NUM_IDS, write_model
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.load import ModelSettings, load_adapted_model, load_model
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.testing import check_model

TOKENS = [1] + [3 + (7 * i * i + 5 * i) % (NUM_IDS - 3) for i in range(39)]
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
}
LONG = {
    "rope.scaling.original_context_length": 256,
    "context_length": 1024,
    "rope.scaling.attn_factor": 1.2,
}
LONG_FACTORS = {
    "rope_factors_short.weight": np.linspace(1, 2, 24),
    "rope_factors_long.weight": np.linspace(2, 8, 24),
}
LLAMA3 = {"rope_freqs.weight": np.linspace(1, 8, 32)}
POINTS: list[tuple[str, str, dict[str, Any], dict[str, np.ndarray]]] = [
    *((family, "F32", {}, {}) for family in FAMILIES),
    ("llama", "IQ4_NL", {"rope.scale_linear": 4.0}, LLAMA3),
    ("llama", "Q3_K", YARN, {}),
    ("llama with biases", "IQ2_XS", YARN, LLAMA3),
    ("qwen2", "Q4_0", {"rope.scaling.factor": 4.0}, {}),
    ("granite", "Q6_K", {}, LLAMA3),
    ("phi3", "Q4_K", LONG, LONG_FACTORS),
    ("gemma3", "Q8_0", {"rope.scaling.factor": 8.0}, {}),
]


def logits_of(model: LanguageModel) -> Tensor:
    cache = model.open_cache()
    return model.forward(cache, Rows([cache.add()], [TOKENS]))[0]


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("family", "format", "metadata", "tensors"), POINTS)
def test_a_file_is_one_model_by_every_implementation(
    tmp_path: Path, family: str, format: str, metadata: dict[str, Any], tensors: Any
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES[family], format, metadata, tensors)
    config, weights = read_gguf(path)
    plain = logits_of(TorchDecoder.from_weights(weights, config))
    fast = load_model(str(path), ModelSettings(activations="float32", device="cpu"))
    assert difference(logits_of(fast), plain) <= 1e-4
    theirs = load_adapted_model(str(path), ModelSettings(device="cpu"))
    assert difference(logits_of(theirs), plain) <= 1e-4
    assert fast.traits.vocab_size == theirs.traits.vocab_size == NUM_IDS
    assert fast.traits.eos_token_ids == theirs.traits.eos_token_ids
    assert fast.traits.context_length == theirs.traits.context_length


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_without_one_of_its_tensors_is_refused_by_name(tmp_path: Path, family: str) -> None:
    path = tmp_path / "model.gguf"
    model = FAMILIES[family]
    names = write_model(path, model, "F32")
    last = f"blk.{model.num_layers - 1}."
    for name in names:
        if (name.startswith("blk.") and not name.startswith(last)) or name == "output.weight":
            continue  # the other layers alike; without a head of its own a model is tied
        write_model(path, model, "F32", without=name)
        with pytest.raises(ModelFormatError, match=f"lacks tensor '{name}'"):
            read_gguf(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tensor_too_many_is_refused_by_name(tmp_path: Path, family: str) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES[family], "F32", tensors={"blk.0.extra.weight": np.zeros(8)})
    with pytest.raises(ModelFormatError, match=r"tensor 'blk\.0\.extra\.weight' is unknown"):
        read_gguf(path)


@pytest.mark.parametrize("family", ["granite", "phi3", "gemma2", "gemma3"])
def test_the_plain_decoder_keeps_the_contract(tmp_path: Path, family: str) -> None:
    write_model(tmp_path / "model.gguf", FAMILIES[family], "F32")
    config, weights = read_gguf(tmp_path / "model.gguf")
    check_model(TorchDecoder.from_weights(weights, config))


def test_a_context_ends_where_two_readings_would_part(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["phi3"], "F32", LONG, LONG_FACTORS)
    assert read_gguf(path)[0].context_length == 256
    write_model(path, FAMILIES["llama"], "F32", {"attention.sliding_window": 100})
    assert read_gguf(path)[0].context_length == 100
    write_model(path, FAMILIES["gemma2"], "F32")
    assert read_gguf(path)[0].context_length == 256


def test_a_split_file_is_the_whole_model(tmp_path: Path) -> None:
    path, parts = tmp_path / "model.gguf", tmp_path / "parts"
    parts.mkdir()
    write_model(path, FAMILIES["llama"], "Q4_0")
    first = write_model(parts / "m.gguf", FAMILIES["llama"], "Q4_0", num_parts=3)
    assert len(list(parts.iterdir())) == 3
    assert first
    whole, split = read_gguf(path), read_gguf(parts / "m-00001-of-00003.gguf")
    assert torch.equal(*(logits_of(TorchDecoder.from_weights(w, c)) for c, w in (whole, split)))


@pytest.mark.parametrize(
    ("family", "metadata", "message"),
    [
        ("llama", {"attention.scale": 0.1}, r"llama\.attention\.scale is 0\.1"),
        ("qwen2", {"logit_scale": 2.0}, r"qwen2\.logit_scale is 2\.0"),
        ("llama", {"rope.scaling.yarn_beta_fast": 8.0} | YARN, r"yarn_beta_fast is 8\.0"),
        ("llama", {"rope.scaling.yarn_log_multiplier": 0.5} | YARN, "yarn_log_multiplier"),
        ("granite", {"rope.scaling.finetuned": False}, "finetuned is False"),
        ("granite", {"logit_scale": None}, "logit_scale None"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping None"),
        ("gemma3", YARN, r"rope\.scaling\.type is 'yarn'"),
        ("gemma3", {"attention.sliding_window_pattern": 1}, "sliding_window_pattern 1"),
        ("gemma", {"rope.dimension_count": 32}, r"rope\.dimension_count is 32"),
        ("phi3", {"rope.dimension_count": 31}, r"rope\.dimension_count is 31"),
        ("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, "factor is 2.0"),
        ("llama", {"attention.head_count_kv": [2, 2, 2]}, "3 values for 2 layers"),
    ],
)
def test_what_a_family_does_not_know_is_refused_by_name(
    tmp_path: Path, family: str, metadata: dict[str, Any], message: str
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES[family], "F32", metadata)
    with pytest.raises(ModelFormatError, match=message) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_floats_that_would_not_fit_in_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["gemma"], "Q4_0")
    floats = 4 * read_gguf(path)[1].num_weights
    monkeypatch.setattr("draftsmith.models.load.available_memory", lambda: floats - 1)
    with pytest.raises(ModelFormatError, match=r"model\.gguf: its weights need .* are available"):
        load_model(str(path), ModelSettings(device="cpu"))
    monkeypatch.setattr("draftsmith.models.load.available_memory", lambda: floats)
    load_model(str(path), ModelSettings(device="cpu"))


GRID = json.loads((RESULTS / "gguf_grid.json").read_text())


def test_the_grid_beside_llamacpp_has_no_difference() -> None:
    assert set(GRID["counts"]) == {"equal", "refused"}
    assert set(GRID["one_tensor_left_out"]) == {"refused"}
    assert {row["family"] for row in GRID["points"]} == set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "scaling"),
    [
        *((family, "none") for family in FAMILIES),
        ("llama", "scale_linear"),
        ("llama", "rope_freqs, yarn"),
        ("qwen2", "yarn, finetuned, attn_factor"),
        ("granite", "longrope"),
        ("granite", "attention.scale"),
        ("phi3", "longrope, untyped"),
        ("phi3", "dimension_count"),
        ("gemma2", "attn_logit_softcapping"),
        ("gemma3", "freq_base_swa"),
        ("gemma3", "linear"),
    ],
)
def test_logits_are_those_that_llamacpp_gave(tmp_path: Path, family: str, scaling: str) -> None:
    sample = GRID["peer_logits_of_last_token"][f"{family}, F32, {scaling}"]
    path = tmp_path / "model.gguf"
    write_point(path, family, "F32", scaling)
    model = load_model(str(path), ModelSettings(activations="float32", device="cpu"))
    cache = model.open_cache()
    logits = model.forward(cache, Rows([cache.add()], [GRID_TOKENS]))[0, -1]
    error = (logits[list(SAMPLED_IDS)] - torch.tensor(sample)).abs().max()
    assert float(error / logits.abs().max()) <= TOLERANCE


def test_other_families_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "F32")
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(ModelFormatError, match=r"is 'mamba', .*give the model's folder"):
        load_model(str(path), ModelSettings(device="cpu"))
