"""One block head, written as each publisher writes it, loads to the same logits as its twin's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_layouts import read_block
from draftsmith.drafters.heads.described import described_head
from draftsmith.drafters.heads.kinds import is_head, read_head
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.models.saved import save_tensors
from tests.drafters.heads import block_kit, kit
from tests.drafters.recording import view

CPU = torch.device("cpu")
THEIR_PARTS = {
    "input_norm": "input_layernorm.weight",
    "post_norm": "post_attention_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "output": "self_attn.o_proj.weight",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
THEIRS = {
    "fc": "fc.weight",
    "context_norm": "hidden_norm.weight",
    "norm": "norm.weight",
    "head": "lm_head.weight",
    "embedding": "embed_tokens.weight",
    "markov.previous": "markov_head.markov_w1.weight",
    "markov.following": "markov_head.markov_w2.weight",
    "markov.gate": "markov_head.gate_proj.weight",
    "markov.gate_bias": "markov_head.gate_proj.bias",
    "markov.joint": "markov_head.joint_proj.weight",
    "markov.joint_bias": "markov_head.joint_proj.bias",
    "confidence": "confidence_head.proj.weight",
    "confidence_bias": "confidence_head.proj.bias",
}


def their_tensors(config: BlockConfig, weights: HeadWeights) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        if name.startswith("layers."):
            _, number, part = name.split(".")
            found[f"layers.{number}.{THEIR_PARTS[part]}"] = tensor
        else:
            found[THEIRS[name]] = tensor
    if weights.ids is not None:
        marks = torch.zeros(config.target_vocab_size, dtype=torch.bool)
        marks[weights.ids] = True
        found |= {"d2t": weights.ids - torch.arange(len(weights.ids)), "t2d": marks}
    return found


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_tensors(folder / "model.safetensors", tensors)


def sizes(config: BlockConfig) -> dict[str, Any]:
    """What `transformers` writes of a Qwen3 decoder."""
    return {
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": ["full_attention"] * config.num_layers,
        "max_position_embeddings": 4096,
        "max_window_layers": 5,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.target_vocab_size,
    }


def spark(config: BlockConfig) -> dict[str, Any]:
    return {
        "markov_rank": config.markov_rank,
        "markov_head_type": config.markov,
        "enable_confidence_head": config.has_confidence,
        "confidence_head_with_markov": config.confidence_reads_token,
    }


def later(config: BlockConfig) -> list[int]:
    return [b - 1 for b in config.boundaries]


def z_lab(config: BlockConfig) -> dict[str, Any]:
    block = {"mask_token_id": config.mask_id, "target_layer_ids": later(config)}
    return {
        **sizes(config),
        "architectures": ["DFlashDraftModel"],
        "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
        "block_size": config.block_size,
        "dflash_config": block,
        "num_target_layers": kit.LAYERS,
    }


def z_lab_nested(config: BlockConfig) -> dict[str, Any]:
    found = z_lab(config)
    found["dflash_config"]["block_size"] = found.pop("block_size")
    found["dflash_config"]["causal"] = config.is_causal
    return found


def spec_forge(config: BlockConfig) -> dict[str, Any]:
    block = {"mask_token_id": config.mask_id, "target_layer_ids": later(config)}
    return {
        **z_lab(config),
        "architectures": ["DSparkDraftModel"],
        "dflash_config": {
            **block,
            "projector_type": "dspark",
            "attention_mode": "gqa",
            "confidence_head_alpha": 1.0,
            **spark(config),
        },
    }


def deep_spec(config: BlockConfig) -> dict[str, Any]:
    return {
        **sizes(config),
        **spark(config),
        "architectures": ["Qwen3DSparkModel"],
        "block_size": config.block_size,
        "mask_token_id": config.mask_id,
        "target_layer_ids": later(config),
        "num_anchors": 512,
        "num_target_layers": kit.LAYERS,
    }


def speculators(config: BlockConfig) -> dict[str, Any]:
    kind = "dspark" if config.markov != "none" else "dflash"
    return {
        "architectures": ["DSparkDraftModel" if kind == "dspark" else "DFlashDraftModel"],
        "speculators_model_type": kind,
        "speculators_version": "0.9.0",
        "speculators_config": {
            "algorithm": kind,
            "verifier": {"name_or_path": "some/target", "architectures": []},
        },
        "transformer_layer_config": sizes(config),
        "aux_hidden_state_layer_ids": list(config.boundaries),
        "block_size": config.block_size,
        "draft_vocab_size": config.vocab_size,
        "mask_token_id": config.mask_id,
        "sample_from_anchor": config.drafts_from_anchor,
        "sliding_window_non_causal": False,
        "target_hidden_size": config.target_hidden_size,
        **(spark(config) if kind == "dspark" else {"projector_type": "dflash", "auf": False}),
    }


Writer = Callable[[BlockConfig], dict[str, Any]]
DEEP = {"has_head": True, "has_embedding": True}
LAYOUTS: dict[str, tuple[Writer, str, dict[str, Any]]] = {
    "z-lab": (z_lab, "dflash", {"rope_theta": 1e6}),
    "z-lab-nested-causal": (z_lab_nested, "causal", {}),
    "SpecForge": (spec_forge, "dspark-sure", {}),
    "DeepSpec": (deep_spec, "dspark-sure", {**DEEP, "boundaries": (0, 1, 2, 4, 6)}),
    "DeepSpec-dflash": (deep_spec, "from-anchor", DEEP),
    "DeepSpec-gated": (deep_spec, "dspark-gated", {**DEEP, "is_causal": False}),
    "DeepSpec-rnn": (deep_spec, "dspark-rnn", DEEP),
    "speculators": (speculators, "own-head", {}),
    "speculators-dspark": (speculators, "dspark-reduced", {}),
    "speculators-bonus-anchor": (speculators, "dspark-bonus-anchor", {}),
}


def laws(config: BlockConfig, weights: HeadWeights) -> Tensor:
    drafter = BlockDrafter(BlockHead(config, weights, kit.target(), CPU, None))
    context = block_kit.Handing([view(list(range(3, 20)), 3)], [[7, 8]], config=config)
    drafter.propose(context)
    return torch.stack(context.logits_of(0))


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_loads_to_the_logits_of_the_plain_twin(tmp_path: Path, name: str) -> None:
    written, variant, changes = LAYOUTS[name]
    config = block_kit.config(variant, **changes)
    weights = block_kit.weights(config)
    write(tmp_path, written(config), their_tensors(config, weights))
    assert is_head(tmp_path)
    found, read = read_block(tmp_path, kit.target())
    assert found.boundaries == config.boundaries
    assert found.drafts_from_anchor == config.drafts_from_anchor
    assert name.startswith(found.layout)
    wanted, _ = block_kit.plain_laws(config, weights, list(range(3, 20)), [7, 8])
    torch.testing.assert_close(laws(found, read), wanted, rtol=1e-3, atol=1e-3)


def whole(folder: Path, name: str = "SpecForge", **more: Any) -> None:
    written, variant, changes = LAYOUTS[name]
    config = block_kit.config(variant, **{**changes, **more})
    write(folder, written(config), their_tensors(config, block_kit.weights(config)))


def changed(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *parts, last = key.split(".")
        place = config
        for part in parts:
            place = place.setdefault(part, {})
        if value == "gone":
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("z-lab", {"odd_switch": True}, r"the key odd_switch \(True\)"),
        ("z-lab", {"dflash_config.odd": 1}, r"the key dflash_config.odd \(1\)"),
        ("z-lab", {"dflash_config.mask_token_id": "gone"}, "has no mask_token_id"),
        ("z-lab", {"dflash_config.mask_token_id": 500}, "mask_token_id is 500, of a target"),
        ("z-lab", {"block_size": "gone"}, "has no block_size"),
        ("z-lab", {"dflash_config.block_size": 9}, "block_size is 5 and dflash_config.block_size"),
        ("z-lab", {"dflash_config.use_swa": True}, "use_swa is True: of heads, only False"),
        ("z-lab", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("z-lab", {"layer_types": ["sliding_attention"] * 2}, "layer_types is .*sliding"),
        ("z-lab", {"layer_types": None, "sliding_window": 64}, "sliding_window is 64 and no"),
        ("z-lab", {"dflash_config.attention_sink_bias": True}, "attention_sink_bias is True"),
        ("z-lab", {"is_neox_style": False}, "is_neox_style is False"),
        ("z-lab", {"dflash_config.shift_label": True}, "shift_label is True"),
        ("z-lab", {"dflash_config.projector_type": "domino"}, "projector_type is 'domino'"),
        ("z-lab", {"dflash_config.final_logit_softcapping": 30.0}, "softcapping is 30.0"),
        ("z-lab", {"architectures": ["DFlash2DraftModel"]}, "is 'DFlash2DraftModel': of block"),
        ("z-lab", {"dflash_config.conv_kernel_size": 2}, "the key dflash_config.conv_kernel_size"),
        ("z-lab", {"dflash_config": 5}, "dflash_config is 5, no JSON object"),
        ("z-lab", {"dflash_config.target_layer_ids": [0, 1]}, "reads 3 states .* 2 are told"),
        ("z-lab", {"dflash_config.target_layer_ids": "all"}, "must be a list of layers"),
        ("z-lab", {"dflash_config.target_layer_ids": [0, 2, 8]}, "behind layer 9, and the target"),
        ("z-lab", {"aux_hidden_state_layer_ids": [0, 2, 4]}, "name other layers"),
        ("z-lab", {"target_hidden_size": 40}, "no whole states of 40"),
        ("z-lab", {"num_hidden_layers": 3}, "no tensor 'layers.2.input_norm'"),
        ("z-lab", {"num_hidden_layers": 1}, "a tensor 'layers.1"),
        ("z-lab", {"quantization_config": {"quant_method": "awq"}}, "quantization_config is .*awq"),
        ("z-lab", {"causal": True, "is_causal": False}, "causal and is_causal contradict"),
        ("z-lab", {"causal": "yes"}, "causal is 'yes'; it must be true or false"),
        ("SpecForge", {"dflash_config.markov_head_type": "fir"}, "'fir': vanilla, gated, rnn are"),
        ("SpecForge", {"dflash_config.markov_rank": 0}, "has no Markov head"),
        ("SpecForge", {"dflash_config.enable_confidence_head": False}, "a tensor 'confidence'"),
        ("SpecForge", {"sample_from_anchor": True, "dspark_bonus_anchor": True}, "are both true"),
        ("SpecForge", {"dflash_config.markov_head_type": "gated"}, "no tensor 'markov.gate'"),
        ("SpecForge", {"dflash_config.dspark_backbone_conv_enabled": True}, "conv_enabled is True"),
        ("speculators-dspark", {"sample_from_anchor": "gone"}, "has no sample_from_anchor"),
        ("speculators-dspark", {"speculators_model_type": "dflash2"}, "is 'dflash2': of block"),
        ("speculators-dspark", {"draft_vocab_size": 39}, "d2t of .40. for 39 outputs"),
        ("speculators", {"projector_type": "domino"}, "projector_type is 'domino'"),
        ("speculators", {"layer_types": ["sliding_attention"]}, "layer_types is .*sliding"),
        (
            "speculators",
            {"aux_hidden_state_layer_offset": 1},
            "layer_offset is 1: of heads, only 0",
        ),
        ("DeepSpec", {"partial_rotary_factor": 0.25}, "partial_rotary_factor is 0.25"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    whole(tmp_path, name)
    changed(tmp_path, changes)
    with pytest.raises(DraftsmithError, match=message) as refusal:
        BlockHead(*read_block(tmp_path, kit.target()), kit.target(), CPU)
    assert "\n" not in str(refusal.value)


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    written, variant, more = LAYOUTS["SpecForge"]
    config = block_kit.config(variant, **more)
    tensors = their_tensors(config, block_kit.weights(config))
    for changes, message in (
        ({"fc.weight": None}, "holds no fc.weight"),
        ({"hidden_norm.weight": None}, "no tensor 'context_norm'"),
        ({"layers.1.mlp.up_proj.weight": None}, "no tensor 'layers.1.up'"),
        ({"confidence_head.proj.bias": None}, "no tensor 'confidence_bias'"),
        ({"layers.0.self_attn.g_proj.weight": torch.ones(4, 4)}, "of a gate on attention"),
        ({"layers.0.self_attn.sinks": torch.ones(4)}, "of attention sinks"),
        ({"layers.0.self_attn.q_proj.bias": torch.ones(64)}, "of a bias of a layer"),
        ({"layers.0.mlp_conv.base_kernel": torch.ones(4)}, "of DFlash2's convolutions"),
        ({"candidate_selector.predecessor_codebook": torch.ones(4)}, "of DFlash2's selector"),
        ({"prefix_gru.weight_ih_l0": torch.ones(4)}, "of Domino"),
        ({"odd.weight": torch.ones(4)}, "that no DFlash or DSpark head has"),
    ):
        kept = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
        write(tmp_path, written(config), kept)
        with pytest.raises(DraftsmithError, match=message) as refusal:
            read_block(tmp_path, kit.target())
        assert "\n" not in str(refusal.value)


def test_a_mask_with_an_embedding_of_its_own_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "mask_embedding.pt").write_bytes(b"")
    with pytest.raises(DraftsmithError, match=r"has mask_embedding\.pt"):
        read_block(tmp_path, kit.target())


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DraftsmithError, match=r"model\.safetensors is truncated"):
        read_block(tmp_path, kit.target())


def test_names_of_an_encoder_are_known(tmp_path: Path) -> None:
    config = block_kit.config()
    tensors = their_tensors(config, block_kit.weights(config))
    tensors["encoder.fc.weight"] = tensors.pop("fc.weight")
    tensors["encoder.output_norm_enc.weight"] = tensors.pop("hidden_norm.weight")
    write(tmp_path, z_lab(config), tensors)
    assert read_block(tmp_path, kit.target())[0].boundaries == config.boundaries


def test_layers_that_nobody_names_lie_evenly(tmp_path: Path) -> None:
    config = block_kit.config(boundaries=(2, 3, 4))
    keys = z_lab(config)
    del keys["dflash_config"]["target_layer_ids"]
    write(tmp_path, keys, their_tensors(config, block_kit.weights(config)))
    assert read_block(tmp_path, kit.target())[0].boundaries == (2, 3, 4)
    changed(tmp_path, {"num_target_layers": "gone"})
    assert read_block(tmp_path, kit.target(num_layers=36))[0].boundaries == (2, 18, 34)
    with pytest.raises(InvalidRequestError, match="give --target, too"):
        read_block(tmp_path, None)


def test_an_id_that_can_only_be_a_boundary_is_one(tmp_path: Path) -> None:
    whole(tmp_path, "z-lab")
    changed(tmp_path, {"dflash_config.target_layer_ids": [2, 4, 6]})
    assert read_block(tmp_path, kit.target())[0].boundaries == (2, 4, 6)


def test_every_convention_is_shown(tmp_path: Path) -> None:
    whole(tmp_path / "spark", "speculators-dspark")
    shown = described_head(tmp_path / "spark")
    assert shown is not None
    assert shown["kind"] == "DSpark"
    assert shown["for"] == "some/target"
    assert shown["boundaries"] == "1, 3, 5"
    assert shown["anchor"] == "drafts"
    assert shown["ids"] == "40 of 96"
    assert read_head(tmp_path / "spark", None).described()["layout"] == "speculators"
