"""A block head as files: in the layout of speculators, which vLLM loads and we read again."""

from pathlib import Path

import torch
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_names import their_block_name
from draftsmith.drafters.heads.export import tables_of_ids
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.drafters.heads.whole_numbers import QUANTIZATION, rounded
from draftsmith.models.saved import save_folder

__all__ = ["block_config_keys", "block_tensors", "write_block"]

_IN_FLOATS = {"confidence", "embedding", "markov.gate", "markov.joint", "markov.previous"}
"""What is not rounded when a head is loaded."""


def write_block(
    folder: Path, config: BlockConfig, weights: HeadWeights, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a head's folder; each file is whole or not there, the config last.

    Args:
        folder: Made where it is missing.
        config: The head's conventions.
        weights: Its tensors.
        dtype: Of the stored weights; int8 is 8 bits and a scale for every 32.

    Raises:
        InvalidRequestError: The folder cannot be written to.
    """
    save_folder(folder, block_config_keys(config, dtype), block_tensors(config, weights, dtype))


def block_config_keys(
    config: BlockConfig, dtype: torch.dtype = torch.bfloat16
) -> dict[str, object]:
    """The config.json of a head, every convention written out.

    Args:
        config: The head's.
        dtype: Of the stored weights.

    Returns:
        What JSON holds.
    """
    kind = "dflash" if config.markov == "none" else "dspark"
    rope = {"rope_type": "default", **dict(config.rope_scaling), "rope_theta": config.rope_theta}
    layer = {
        "model_type": "qwen3",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "layer_types": ["full_attention"] * config.num_layers,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "max_position_embeddings": config.context_length,
        "vocab_size": config.target_vocab_size,
    }
    spark = {
        "markov_rank": config.markov_rank,
        "markov_head_type": config.markov,
        "enable_confidence_head": config.has_confidence,
        "confidence_head_with_markov": config.confidence_reads_token,
    }
    packed = {"quantization_config": QUANTIZATION} if dtype == torch.int8 else {}
    proposal = {"proposal_type": "greedy", "speculative_tokens": config.longest}
    return {
        "architectures": ["DFlashDraftModel" if kind == "dflash" else "DSparkDraftModel"],
        "speculators_model_type": kind,
        "speculators_config": {
            "algorithm": kind,
            "default_proposal_method": "greedy",
            "proposal_methods": [proposal],
            "verifier": {"name_or_path": config.target, "architectures": []},
        },
        "transformer_layer_config": layer,
        "draft_vocab_size": config.vocab_size,
        "target_hidden_size": config.target_hidden_size,
        "aux_hidden_state_layer_ids": list(config.boundaries),
        "block_size": config.block_size,
        "mask_token_id": config.mask_id,
        "sample_from_anchor": config.drafts_from_anchor,
        **({"is_causal": True} if config.is_causal else {}),
        **({} if kind == "dflash" else spark),
        "tie_word_embeddings": False,
        "torch_dtype": str(torch.bfloat16 if packed else dtype).removeprefix("torch."),
        **packed,
    }


def block_tensors(
    config: BlockConfig, weights: HeadWeights, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """A head's tensors by the names of speculators.

    Args:
        config: The head's.
        weights: Its tensors.
        dtype: Of the stored weights.

    Returns:
        The tensors, `d2t` (offsets) and `t2d` among them where the vocabulary is reduced.
    """
    named = {their_block_name(name): one for name, one in weights.tensors.items()}
    found = {
        name: one.to(torch.bfloat16 if dtype == torch.int8 else dtype)
        for name, one in named.items()
    }
    if dtype == torch.int8:
        floats = set(map(their_block_name, _IN_FLOATS.intersection(weights.tensors)))
        found |= rounded({name: one for name, one in named.items() if name not in floats})
    return found | tables_of_ids(weights.ids, config.target_vocab_size)
