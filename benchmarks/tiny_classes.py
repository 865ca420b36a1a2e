"""Every causal and encoder-decoder class of `transformers`, tiny and with random weights.

A config's numbers are made small by their names; what its class derives from them follows. A few
classes tie numbers together in ways that no name tells: those are written out.
"""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

VOCAB = 96
WINDOW = 6
"""Of sliding attention, so that short texts slide."""
POSITIONS = 128
_LARGEST = 2_000_000

_SIZES: dict[int, str] = {
    VOCAB: "vocab_size src_vocab_size tgt_vocab_size vocab_size_per_layer_input",
    POSITIONS: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions "
    "max_source_positions max_encoder_position_embeddings max_decoder_position_embeddings "
    "original_max_position_embeddings context_length",
    64: "intermediate_size d_ff ffn_dim n_inner encoder_ffn_dim decoder_ffn_dim dff dim_ff d_inner "
    "moe_intermediate_size shared_expert_intermediate_size dense_intermediate_size "
    "shared_intermediate_size shared_experts_intermediate_size ffn_hidden_size feed_forward_size "
    "expert_ffn_hidden_size intermediate_size_mlp prefix_dense_intermediate_size "
    "moe_shared_expert_intermediate_size",
    32: "hidden_size d_model n_embd dim emb_dim embedding_size embedding_dim word_embed_proj_dim "
    "q_lora_rank lru_width kv_lora_rank o_lora_rank input_embedding_size router_hidden_size",
    8: "head_dim d_head d_kv qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim "
    "linear_value_head_dim mamba_d_head mamba_head_dim dim_head kv_channels swa_head_dim "
    "state_size mamba_d_state ssm_state_size hidden_size_per_layer_input laurel_rank "
    "index_head_dim attention_head_size d_rel gated_norm_rank loop_gate_rank hc_lowrank",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads attention_heads "
    "decoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "linear_num_value_heads num_encoder_attention_heads num_decoder_attention_heads "
    "swa_num_attention_heads index_n_heads linear_num_heads num_v_heads num_qk_heads "
    "relative_attention_num_buckets",
    2: "num_key_value_heads num_kv_heads n_layer num_layers n_layers num_hidden_layers "
    "encoder_layers decoder_layers num_encoder_layers num_decoder_layers num_experts_per_tok "
    "moe_topk moe_k linear_num_key_heads num_blocks max_window_layers swa_num_key_value_heads "
    "top_k_experts",
    1: "num_shared_experts n_shared_experts n_group topk_group first_k_dense_replace "
    "num_dense_layers o_groups",
    WINDOW: "sliding_window sliding_window_size attention_window_size local_attention window_size "
    "attention_chunk_size",
}
_SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}
_FLAGS = {"is_decoder": True}
"""A BERT reads both ways unless its config says that it decodes."""
_START = 2
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


class TinyClass(NamedTuple):
    """One class of `transformers`."""

    model_type: str
    class_name: str
    is_encoder_decoder: bool


_EQUAL_HEADS = {"num_key_value_heads": 4}
"""Latent attention has as many key heads as heads."""
_LATENT = (
    "axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 dots3_note_text glm4_moe_lite "
    "glm_moe_dsa kimi_linear longcat_flash minicpm3 youtu"
)
_HYBRID_LAYERS = {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8}
_SELF_NAMED = {"GPT2LMHeadModel": "gpt2", "LlamaForCausalLM": "llama"}
"""Classes that other families borrow."""
_SCALE = 0.2
_SCALES = {"nemotron_h": 0.05, "zamba2": 0.05}
"""Smaller weights where transformers' own passes over a prompt and over a token disagree, the more
so the larger the weights are (zamba2's by 6e-4 at 0.2, in float64 too)."""
_WRITTEN_OUT: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_LATENT.split(), _EQUAL_HEADS),
    "axk1": _EQUAL_HEADS | {"n_group": 1, "topk_group": 1},
    "bailing_hybrid": _EQUAL_HEADS | {"layer_group_size": 2},
    "bamba": _MAMBA2 | {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dory": {"num_hidden_layers": 6, "n_input_layers": 2, "n_output_layers": 2},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8},
    "gemma3n_text": {"num_hidden_layers": 5, "num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": _MAMBA2 | _HYBRID_LAYERS,
    "inkling2_loop_text": {"unpadded_vocab_size": VOCAB},
    "inkling2_text": {"unpadded_vocab_size": VOCAB},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": _EQUAL_HEADS | _HYBRID_LAYERS,
    "led": {"attention_window": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": _EQUAL_HEADS | {"zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "moshi": {"audio_vocab_size": VOCAB, "sliding_window": POSITIONS},
    "nemotron_h": {"mamba_num_heads": 8},
    "qwen3_5_moe_text": _HYBRID_LAYERS,
    "qwen3_5_text": _HYBRID_LAYERS,
    "qwen3_next": _HYBRID_LAYERS,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_embds": False},
    "roc_bert": {"shape_vocab_size": VOCAB, "pronunciation_vocab_size": VOCAB},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "mamba", "hybrid"]},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_classes() -> Iterator[TinyClass]:
    """Every class that generates text from tokens, each once."""
    tables = (
        (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, False),
        (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, True),
    )
    for table, is_pair in tables:
        by_class: dict[str, list[str]] = {}
        for model_type, class_name in table.items():
            by_class.setdefault(class_name, []).append(model_type)
        for class_name, model_types in by_class.items():
            # Where a class has a config of its own and one with pictures, the former.
            of_text = [name for name in model_types if name.endswith("_text")]
            own = [name for name in model_types if _SELF_NAMED.get(class_name, name) == name]
            yield TinyClass((of_text or own)[0], class_name, is_pair)


def tiny_config(model_type: str) -> Any:
    """Its config with small numbers."""
    kind = CONFIG_MAPPING[model_type]
    options = _small(kind, model_type) | _SPECIAL
    if "is_decoder" in {field.name for field in dataclasses.fields(kind)}:
        options |= _FLAGS
    if getattr(kind, "is_encoder_decoder", False) or "decoder_start_token_id" in kind.__dict__:
        options["decoder_start_token_id"] = _START
    return kind(**options)


def _small(kind: Any, model_type: str) -> dict[str, Any]:
    named = {field.name for field in dataclasses.fields(kind)}
    options: dict[str, Any] = {name: _SMALL[name] for name in named & _SMALL.keys()}
    for name, part in getattr(kind, "sub_configs", {}).items():
        if name in named and dataclasses.is_dataclass(part):
            options[name] = _small(part, model_type)
    return options | _WRITTEN_OUT.get(model_type, {})


def tiny_model(one: TinyClass, seed: int = 1) -> Any:
    """The model, with weights that make each token matter."""
    config = tiny_config(one.model_type)
    kind = getattr(transformers, one.class_name)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in kind(copy.deepcopy(config)).parameters())
    if size > _LARGEST:
        raise ValueError(f"{size} parameters: not tiny")
    torch.manual_seed(seed)
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    scale = _SCALES.get(one.model_type, _SCALE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, scale, generator=generator)
    # Beam search and forced ids of a family's defaults are no part of its law.
    model.generation_config = transformers.GenerationConfig(
        **_SPECIAL, decoder_start_token_id=_START if one.is_encoder_decoder else None
    )
    return model
