"""One head, written as each publisher writes it, loads to the same logits as the plain twin's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.drafters.heads import HeadConfig, HeadDrafter, HeadWeights
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.export import (
    speculators_config,
    speculators_tensors,
    write_speculators,
)
from draftsmith.drafters.heads.kinds import is_head, read_head
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.errors import DraftsmithError, ModelFormatError
from draftsmith.kernels.quantise import blocks_from_float
from draftsmith.models.saved import save_tensors
from tests.drafters.heads import kit
from tests.drafters.recording import view

N = kit.LAYERS
CPU = torch.device("cpu")
FLOAT = torch.float32
# N = 6: the usual boundaries are 2, 3 and 3.
USUAL = (2, 3, 3)


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_tensors(folder / "model.safetensors", tensors)


def flat(config: HeadConfig, **more: Any) -> dict[str, Any]:
    """A config.json as `transformers` would write it."""
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_epsilon,
        "vocab_size": config.target_vocab_size,
        "draft_vocab_size": config.vocab_size,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        **more,
    }


def middle(config: HeadConfig, weights: HeadWeights) -> dict[str, Tensor]:
    found = speculators_tensors(config, weights, FLOAT)
    return {name.replace("layers.0.", "midlayer."): tensor for name, tensor in found.items()}


def safe_ai(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(flat(config)))
    torch.save(middle(config, weights), folder / "pytorch_model.bin")


def spec_forge(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    ids = {"eagle_aux_hidden_state_layer_ids": [b - 1 for b in config.boundaries]}
    eagle = {**ids, "use_aux_hidden_state": True}
    # There norm_output is about the logits.
    write(folder, flat(config, eagle_config=eagle, norm_output=True), middle(config, weights))


def model_opt(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    ids = {"eagle_aux_hidden_state_layer_ids": [b - 1 for b in config.boundaries]}
    rope = {"rope_theta": config.rope_theta, "rope_type": "default"}
    keys = flat(config, eagle_config=ids, rope_parameters=rope, rope_theta=123.0)
    write(folder, keys, speculators_tensors(config, weights, FLOAT))


def deep_spec(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    keys = flat(config, target_layer_ids=[b - 1 for b in config.boundaries])
    keys["architectures"] = ["Qwen3Eagle3Model"]
    write(folder, keys, speculators_tensors(config, weights, FLOAT))


def absolute(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    """As some converters do: d2t holds the ids themselves."""
    tensors = speculators_tensors(config, weights, FLOAT)
    if weights.ids is not None:
        tensors["d2t"] = weights.ids
    write(folder, speculators_config(config, FLOAT), tensors)


def speculators(folder: Path, config: HeadConfig, weights: HeadWeights) -> None:
    write_speculators(folder, config, weights, FLOAT)


Writer = Callable[[Path, HeadConfig, HeadWeights], None]
LAYOUTS: dict[str, tuple[Writer, dict[str, Any]]] = {
    "SafeAI": (safe_ai, {"boundaries": USUAL}),
    "SpecForge": (spec_forge, {}),
    "ModelOpt": (model_opt, {"rope_theta": 500_000.0}),
    "DeepSpec": (
        deep_spec,
        {"boundaries": (0, 1, 2, 4, 5), "normalises_heads": True},
    ),
    "speculators": (
        speculators,
        {"norm_before_residual": True, "feeds_back_normed": True, "feature_norm": "each"},
    ),
    "speculators-two-layers": (speculators, {"num_layers": 2, "feature_norm": "joint"}),
    "absolute-d2t": (absolute, {}),
}


def laws(config: HeadConfig, weights: HeadWeights) -> Tensor:
    drafter = HeadDrafter(EagleHead(config, weights, kit.target(), CPU, None))
    text, drawn = list(range(3, 20)), [7, 8]
    context = kit.Handing([view(text, 3)], [drawn], config=config)
    drafter.propose(context)
    return torch.stack(context.logits_of(0))


@pytest.mark.parametrize("is_reduced", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_loads_to_the_logits_of_the_plain_twin(
    tmp_path: Path, name: str, is_reduced: bool
) -> None:
    written, changes = LAYOUTS[name]
    config = kit.config("reduced" if is_reduced else "plain", **changes)
    weights = kit.weights(config)
    written(tmp_path / "head", config, weights)
    assert is_head(tmp_path / "head")
    found, read = read_eagle3(tmp_path / "head", kit.target())
    assert found.boundaries == config.boundaries
    assert found.described()["layout"] == name.replace("-two-layers", "").replace(
        "absolute-d2t", "speculators"
    )
    wanted = kit.plain_laws(config, weights, list(range(3, 20)), [7, 8])
    torch.testing.assert_close(laws(found, read), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 64, "has_embedding": True}])
def test_eight_bits_are_those_that_it_is_rounded_to_when_it_is_loaded(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = kit.config("reduced", **changes)
    weights = kit.weights(config)
    write_speculators(tmp_path / "floats", config, weights, FLOAT)
    write_speculators(tmp_path / "bits", config, weights, torch.int8)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("floats", "bits")]
    assert sizes[1] < 0.4 * sizes[0]
    read = [read_eagle3(tmp_path / name, kit.target())[1] for name in ("floats", "bits")]
    for name in read[0].tensors:
        one, other = (each.tensors[name] for each in read)
        if one.ndim == 2:
            both = [blocks_from_float(each.numpy(), "Q8_0") for each in (one, other)]
            assert (both[0] == both[1]).all(), name
        torch.testing.assert_close(other, one, rtol=0.01, atol=0.01)


def test_eight_bits_without_their_scales_are_refused(tmp_path: Path) -> None:
    config = kit.config()
    tensors = speculators_tensors(config, kit.weights(config), torch.int8)
    for changed_ones in ({}, {"fc.weight_scale": tensors["fc.weight_scale"][:, :1].clone()}):
        kept = {k: v for k, v in tensors.items() if k != "fc.weight_scale"} | changed_ones
        write(tmp_path, speculators_config(config, torch.int8), kept)
        with pytest.raises(ModelFormatError, match=r"'fc.weight' has 8 bits and no scale"):
            read_eagle3(tmp_path, kit.target())


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"odd_switch": True}, r"the key odd_switch \(True\)"),
        ({"norm_before_residual": "gone"}, "has no norm_before_residual"),
        ({"norm_before_residual": "yes"}, "'yes'; it must be true or false"),
        ({"speculators_model_type": "peagle"}, "is 'peagle': of heads, eagle3"),
        ({"architectures": ["DFlashDraftModel"]}, "is 'DFlashDraftModel': of heads"),
        ({"eagle_config": {"use_aux_hidden_state": False}}, "is False, .* is EAGLE-1"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 2]}, "reads 3 states .* 2 are told"),
        ({"eagle_aux_hidden_state_layer_ids": "all"}, "must be a list of layers"),
        ({"target_hidden_size": 40}, "no whole states of 40"),
        ({"draft_vocab_size": 39}, "d2t of .40. for 39 outputs"),
        ({"norm_before_fc": True}, "norm_before_fc is True, and the tensors"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is .*awq"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 3, 9]}, "behind layer 9, and the target has 6"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = kit.config("reduced")
    write_speculators(tmp_path, config, kit.weights(config))
    changed(tmp_path, **changes)
    with pytest.raises(DraftsmithError, match=message) as refusal:
        EagleHead(*read_eagle3(tmp_path, kit.target()), kit.target(), CPU)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    config = kit.config("reduced")
    write_speculators(tmp_path / "one", config, kit.weights(config))
    path = tmp_path / "one" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DraftsmithError, match=r"model\.safetensors is truncated"):
        read_eagle3(tmp_path / "one", kit.target())
    safe_ai(tmp_path / "two", config, kit.weights(config))
    path = tmp_path / "two" / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DraftsmithError, match=r"pytorch_model\.bin cannot be read"):
        read_eagle3(tmp_path / "two", kit.target())


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    config = kit.config("reduced")
    whole = speculators_tensors(config, kit.weights(config), FLOAT)
    for changes, message in (
        ({"fc.weight": None}, "holds no fc.weight"),
        ({"layers.0.mlp.up_proj.weight": None}, "no tensor 'layers.0.up'"),
        (
            {"layers.0.self_attn.q_proj.bias": torch.ones(64)},
            "q_proj.bias', which no",
        ),
        ({"mask_hidden": torch.ones(1)}, "of P-EAGLE"),
        ({"d2t": whole["d2t"] + 1000}, "names ids beyond the target's 96"),
        ({"t2d": ~whole["t2d"]}, "others than t2d marks"),
    ):
        tensors = {k: v for k, v in {**whole, **changes}.items() if v is not None}
        write(tmp_path, speculators_config(config, FLOAT), tensors)
        with pytest.raises(DraftsmithError, match=message):
            read_eagle3(tmp_path, kit.target())


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ({"architectures": ["Qwen3NextMTP"], "model_type": "qwen3_next_mtp"}, {}),
        ({"architectures": ["DeepSeekMTPModel"], "num_nextn_predict_layers": 1}, {}),
        ({"architectures": ["DeepseekV3ForCausalLMNextN"]}, {}),
        ({"speculators_model_type": "mtp", "architectures": ["OddDraftModel"]}, {}),
        ({}, {"mtp.fc.weight": torch.ones(32, 64)}),
        ({}, {"layers.61.eh_proj.weight": torch.ones(32, 64)}),
    ],
)
def test_mtp_layers_are_refused_by_name(
    tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    config = kit.config()
    write(tmp_path, keys or flat(config), tensors)
    assert is_head(tmp_path)
    with pytest.raises(ModelFormatError, match="MTP layers") as refusal:
        read_head(tmp_path, kit.target())
    assert "no native decoder runs" in str(refusal.value)
    assert str(refusal.value).endswith(": use another draft")
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_model_that_brings_mtp_layers_along_is_no_head(tmp_path: Path) -> None:
    for keys in (
        {"architectures": ["DeepseekV3ForCausalLM"], "num_nextn_predict_layers": 1},
        {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next"},
    ):
        (tmp_path / "config.json").write_text(json.dumps(keys))
        assert not is_head(tmp_path)


def test_an_id_that_can_only_be_a_boundary_is_one(tmp_path: Path) -> None:
    config = kit.config(boundaries=(2, 4, N))
    keys = flat(config, eagle_config={"eagle_aux_hidden_state_layer_ids": [2, 4, N]})
    write(tmp_path, keys, middle(config, kit.weights(config)))
    assert read_eagle3(tmp_path, kit.target())[0].boundaries == (2, 4, N)


def test_a_models_folder_is_no_head(tmp_path: Path) -> None:
    assert not is_head(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert not is_head(tmp_path)
