"""A head as files: in the layout of speculators, which vLLM loads, and which we read again."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.names import their_name
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.drafters.heads.whole_numbers import QUANTIZATION, rounded
from draftsmith.models.saved import save_folder

__all__ = [
    "common_keys",
    "speculators_config",
    "speculators_tensors",
    "tables_of_ids",
    "write_speculators",
]

_NUM_TOKENS = 4
"""Of a draft, for programs that ask the file."""


def write_speculators(
    folder: Path, config: HeadConfig, weights: HeadWeights, dtype: torch.dtype = torch.bfloat16
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
    save_folder(
        folder, speculators_config(config, dtype), speculators_tensors(config, weights, dtype)
    )


def speculators_config(
    config: HeadConfig, dtype: torch.dtype = torch.bfloat16
) -> dict[str, object]:
    """The config.json of a head, every convention written out.

    Args:
        config: The head's.
        dtype: Of the stored weights.

    Returns:
        What JSON holds.
    """
    layer = {"model_type": "qwen3" if config.normalises_heads else "llama", "mlp_bias": False}
    return {
        "architectures": ["Eagle3Speculator"],
        **common_keys(config, "eagle3", layer, _NUM_TOKENS, dtype),
        "eagle_aux_hidden_state_layer_ids": list(config.boundaries),
        "norm_before_residual": config.norm_before_residual,
        "norm_output": config.feeds_back_normed,
        "norm_before_fc": config.feature_norm == "joint",
        "fc_norm": config.feature_norm == "each",
    }


def common_keys(
    config: HeadConfig | BlockConfig,
    kind: str,
    layer: Mapping[str, object],
    num_tokens: int,
    dtype: torch.dtype,
) -> dict[str, object]:
    """What the config.json of every kind of head says.

    Args:
        config: The head's.
        kind: By the name that speculators gives it.
        layer: What only this kind says of its layers.
        num_tokens: Of a draft, where other programs ask for a number.
        dtype: Of the stored weights.

    Returns:
        What JSON holds.
    """
    rope = {"rope_type": "default", **dict(config.rope_scaling), "rope_theta": config.rope_theta}
    sizes = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "max_position_embeddings": config.context_length,
        "vocab_size": config.target_vocab_size,
    }
    packed = {"quantization_config": QUANTIZATION} if dtype == torch.int8 else {}
    return {
        "speculators_model_type": kind,
        "speculators_config": {
            "algorithm": kind,
            "default_proposal_method": "greedy",
            "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": num_tokens}],
            "verifier": {"name_or_path": config.target, "architectures": []},
        },
        "transformer_layer_config": {**layer, **sizes},
        "draft_vocab_size": config.vocab_size,
        "target_hidden_size": config.target_hidden_size,
        "tie_word_embeddings": False,
        "torch_dtype": str(torch.bfloat16 if packed else dtype).removeprefix("torch."),
        **packed,
    }


def speculators_tensors(
    config: HeadConfig, weights: HeadWeights, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """A head's tensors by the names of speculators.

    Args:
        config: The head's.
        weights: Its tensors.
        dtype: Of the stored weights.

    Returns:
        The tensors, `d2t` (offsets) and `t2d` among them where the vocabulary is reduced.
    """
    named = {their_name(name): tensor for name, tensor in weights.tensors.items()}
    if dtype == torch.int8:
        found = rounded(named)
    else:
        found = {name: tensor.to(dtype) for name, tensor in named.items()}
    return found | tables_of_ids(weights.ids, config.target_vocab_size)


def tables_of_ids(
    ids: Int[Tensor, " draft_vocab"] | None, target_vocab_size: int
) -> dict[str, Tensor]:
    """What says which ids a head drafts: `d2t`, offsets, and `t2d`, which marks them.

    Args:
        ids: The target's, of each that is drafted; None is all, which nothing need say.
        target_vocab_size: Of all of them.

    Returns:
        The tables by name.
    """
    if ids is None:
        return {}
    marks = torch.zeros(target_vocab_size, dtype=torch.bool)
    marks[ids] = True
    return {"d2t": ids - torch.arange(len(ids)), "t2d": marks}
