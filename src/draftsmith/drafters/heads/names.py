"""What the published layouts call a head's tensors, and the ids that its vocabulary stands for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.errors import ModelFormatError

__all__ = ["LAYER_PARTS", "drafted_ids", "our_names", "their_name"]

_WHOLE = {
    "fc.weight": "fc",
    "input_norm.weight": "input_norm",
    "norm.weight": "norm",
    "lm_head.weight": "head",
    "embed_tokens.weight": "embedding",
}
LAYER_PARTS: Final = {
    "input_layernorm": "input_norm",
    "post_attention_layernorm": "post_norm",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "self_attn.q_norm": "query_norm",
    "self_attn.k_norm": "key_norm",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
"""What all publishers call the parts of a layer, and we."""
_PARTS = {**LAYER_PARTS, "hidden_norm": "hidden_norm"}
_LAYER = re.compile(r"(?:midlayer|layers\.(?P<number>[0-9]+))\.(?P<part>.+)\.weight")
_FEATURE_NORM = re.compile(r"fc_norm\.([0-9]+)\.weight")
_IDS = ("d2t", "t2d")
_FOREIGN = {
    "mask_hidden": "P-EAGLE, and config.json does not name the id of its mask (mask_token_id): "
    "write what the head was trained with",
    "markov_head": "DSpark, and config.json does not speak of it: fetch it again",
    "candidate_selector": "DFlash2, which is not known here: give another head",
    "prefix_gru": "Domino, which is not known here: give another head",
    "mtp.": "MTP layers, which read a family that no native decoder runs: use another draft",
    "eh_proj": "MTP layers, which read a family that no native decoder runs: use another draft",
}


def our_names(tensors: Mapping[str, Tensor], folder: Path) -> tuple[dict[str, Tensor], bool]:
    """A head's weights by our names; tables of ids are left out.

    Args:
        tensors: As the files have them.
        folder: For messages.

    Returns:
        The weights, and whether the layer was called `midlayer`, as SafeAI and SpecForge do.

    Raises:
        ModelFormatError: A tensor is none of an EAGLE-3 head's; its name is told.
    """
    found: dict[str, Tensor] = {}
    is_middle = any(name.startswith("midlayer.") for name in tensors)
    for name, tensor in tensors.items():
        plain = name.removeprefix("model.")
        if plain in _IDS:
            continue
        ours = _our_name(plain)
        if ours is None or ours in found:
            raise _unknown(name, folder)
        found[ours] = tensor
    return found, is_middle


def their_name(
    name: str, whole: Mapping[str, str] = _WHOLE, parts: Mapping[str, str] = _PARTS
) -> str:
    """What most publishers call a tensor.

    Args:
        name: Ours.
        whole: Their names of tensors outside of layers, and ours; the first of several counts.
        parts: The same of the parts of a layer.

    Example:
        >>> their_name("layers.0.query"), their_name("head"), their_name("fc_norm.1")
        ('layers.0.self_attn.q_proj.weight', 'lm_head.weight', 'fc_norm.1.weight')
    """
    if not name.startswith("layers."):
        return next((theirs for theirs, ours in whole.items() if ours == name), f"{name}.weight")
    _, number, part = name.split(".")
    theirs = next(theirs for theirs, ours in parts.items() if ours == part)
    return f"layers.{number}.{theirs}.weight"


def _our_name(name: str) -> str | None:
    if name in _WHOLE:
        return _WHOLE[name]
    if each := _FEATURE_NORM.fullmatch(name):
        return f"fc_norm.{each[1]}"
    layer = _LAYER.fullmatch(name)
    if layer is None or layer["part"] not in _PARTS:
        return None
    return f"layers.{layer['number'] or 0}.{_PARTS[layer['part']]}"


def _unknown(name: str, folder: Path) -> ModelFormatError:
    for mark, kind in _FOREIGN.items():
        if mark in name:
            return ModelFormatError(f"{folder} holds tensor {name!r}, of {kind}")
    return ModelFormatError(
        f"{folder} holds tensor {name!r}, which no EAGLE-3 head has: it is of a kind that is not "
        "known here"
    )


def drafted_ids(
    tensors: Mapping[str, Tensor], num_drafted: int, num_target: int, folder: Path
) -> Int[Tensor, " draft_vocab"] | None:
    """Of each id that the head drafts the target's; None where the two are one.

    `d2t` holds offsets; some converters write the ids themselves. `t2d`, which marks the target's
    ids that are drafted, tells the two apart where it is there.

    Args:
        tensors: As the files have them.
        num_drafted: Outputs of the head.
        num_target: Ids of the target.
        folder: For messages.

    Raises:
        ModelFormatError: The tables are of another size, or contradict each other.
    """
    offsets, marks = (tensors.get(name, tensors.get(f"model.{name}")) for name in _IDS)
    if offsets is None:
        return None
    if tuple(offsets.shape) != (num_drafted,):
        raise ModelFormatError(
            f"{folder} has d2t of {list(offsets.shape)} for {num_drafted} outputs: fetch it again"
        )
    offsets = offsets.long()
    places = offsets + torch.arange(num_drafted)
    for ids in (places, offsets):
        if _agrees(ids, marks, num_target):
            return None if num_drafted == num_target and _is_identity(ids) else ids
    raise ModelFormatError(
        f"{folder} has d2t that names ids beyond the target's {num_target}, or others than t2d "
        "marks, whether read as offsets or as ids: it is another target's, or fetch it again"
    )


def _is_identity(ids: Tensor) -> bool:
    return torch.equal(ids, torch.arange(len(ids)))


def _agrees(ids: Tensor, marks: Tensor | None, num_target: int) -> bool:
    if int(ids.min()) < 0 or int(ids.max()) >= num_target or len(ids.unique()) != len(ids):
        return False
    if marks is None:
        return True
    is_sized = tuple(marks.shape) == (num_target,)
    return is_sized and int(marks.sum()) == len(ids) and bool(marks.bool()[ids].all())
