"""A block head as files: in the layout of speculators, which vLLM loads and we read again."""

from pathlib import Path

import torch
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_names import their_block_name
from draftsmith.drafters.heads.export import common_keys, tables_of_ids
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.drafters.heads.whole_numbers import rounded
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
    layer = {"model_type": "qwen3", "layer_types": ["full_attention"] * config.num_layers}
    spark = {
        "markov_rank": config.markov_rank,
        "markov_head_type": config.markov,
        "enable_confidence_head": config.has_confidence,
        "confidence_head_with_markov": config.confidence_reads_token,
    }
    return {
        "architectures": ["DFlashDraftModel" if kind == "dflash" else "DSparkDraftModel"],
        **common_keys(config, kind, layer, config.longest, dtype),
        "aux_hidden_state_layer_ids": list(config.boundaries),
        "block_size": config.block_size,
        "mask_token_id": config.mask_id,
        "sample_from_anchor": config.drafts_from_anchor,
        **({"is_causal": True} if config.is_causal else {}),
        **({} if kind == "dflash" else spark),
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
