"""Matrices that lie in one tensor, one below the other, as Phi-3 keeps them."""

from collections.abc import Mapping, Sequence

from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.names import GGUF, check_names
from draftsmith.models.native.stored import StoredTensor

__all__ = ["split_tensors"]

_FUSED = {"attn_qkv": ("query", "key", "value"), "ffn_up": ("gate", "up")}
"""A tensor of a layer, and the matrices in it, from the top."""


def split_tensors(
    stored: Mapping[str, StoredTensor], config: DecoderConfig
) -> dict[str, StoredTensor]:
    """The tensors of a file whose matrices are fused, as if they lay apart.

    Raises:
        ModelFormatError: A tensor is missing, unknown or misshapen; it is named as in the file.
    """
    apart = GGUF.shapes(config)
    parts = {
        f"blk.{layer}.{fused}.weight": [GGUF.part(layer, field) for field in fields]
        for layer in range(config.num_layers)
        for fused, fields in _FUSED.items()
    }
    whole = dict(apart)
    for names in parts.values():
        for name in names:
            del whole[name]
    for fused, names in parts.items():
        whole[fused] = (sum(apart[name][0] for name in names), config.hidden_size)
    check_names({name: tensor.shape for name, tensor in stored.items()}, whole)
    split = {name: tensor for name, tensor in stored.items() if name not in parts}
    for fused, names in parts.items():
        split |= _split(stored[fused], names, [apart[name][0] for name in names])
    return split


def _split(
    tensor: StoredTensor, names: Sequence[str], num_rows: Sequence[int]
) -> dict[str, StoredTensor]:
    ends = [sum(num_rows[: place + 1]) for place in range(len(num_rows))]
    return {
        name: tensor.some_rows(name, end - count, count)
        for name, count, end in zip(names, num_rows, ends, strict=True)
    }
