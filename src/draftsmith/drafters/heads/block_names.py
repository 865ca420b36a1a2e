"""What the published layouts call a block head's tensors."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from draftsmith.drafters.heads.names import LAYER_PARTS, their_name
from draftsmith.errors import ModelFormatError

__all__ = ["our_block_names", "their_block_name"]

_WHOLE = {
    "fc.weight": "fc",
    "hidden_norm.weight": "context_norm",
    "norm.weight": "norm",
    "lm_head.weight": "head",
    "embed_tokens.weight": "embedding",
    "markov_head.markov_w1.weight": "markov.previous",
    "markov_head.markov_w2.weight": "markov.following",
    "markov_head.gate_proj.weight": "markov.gate",
    "markov_head.gate_proj.bias": "markov.gate_bias",
    "markov_head.joint_proj.weight": "markov.joint",
    "markov_head.joint_proj.bias": "markov.joint_bias",
    "confidence_head.proj.weight": "confidence",
    "confidence_head.proj.bias": "confidence_bias",
    # Others' names of the same.
    "encoder.fc.weight": "fc",
    "encoder.output_norm_enc.weight": "context_norm",
}
_LAYER = re.compile(r"layers\.(?P<number>[0-9]+)\.(?P<part>.+)\.weight")
_IDS = ("d2t", "t2d")
_FOREIGN = {
    "candidate_selector": "DFlash2's selector",
    "attention_conv": "DFlash2's convolutions",
    "mlp_conv": "DFlash2's convolutions",
    "prefix_gru": "Domino",
    "embed_proj": "Domino",
    "g_proj": "a gate on attention",
    "aux_hidden_norms": "norms before fc",
    "qkv_proj": "queries, keys and values in one matrix",
    "sinks": "attention sinks",
    "attention_sink_bias": "attention sinks",
    "mask_embedding": "an embedding of the mask's own",
    ".bias": "a bias of a layer",
}


def our_block_names(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """A head's weights by our names; tables of ids are left out.

    Args:
        tensors: As the files have them.
        folder: For messages.

    Raises:
        ModelFormatError: A tensor is none of a block head's; its name is told.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("model.")
        if plain in _IDS:
            continue
        ours = _our_name(plain)
        if ours is None or ours in found:
            raise _unknown(name, folder)
        found[ours] = tensor
    return found


def their_block_name(name: str) -> str:
    """What most publishers call a tensor.

    Args:
        name: Ours.

    Example:
        >>> their_block_name("layers.0.query"), their_block_name("context_norm")
        ('layers.0.self_attn.q_proj.weight', 'hidden_norm.weight')
    """
    return their_name(name, _WHOLE, LAYER_PARTS)


def _our_name(name: str) -> str | None:
    if name in _WHOLE:
        return _WHOLE[name]
    layer = _LAYER.fullmatch(name)
    if layer is None or layer["part"] not in LAYER_PARTS:
        return None
    return f"layers.{int(layer['number'])}.{LAYER_PARTS[layer['part']]}"


def _unknown(name: str, folder: Path) -> ModelFormatError:
    kind = next((kind for mark, kind in _FOREIGN.items() if mark in name), None)
    what = "that no DFlash or DSpark head has" if kind is None else f"of {kind}"
    return ModelFormatError(
        f"{folder} holds tensor {name!r}, {what}: that is not known here; give another head"
    )
