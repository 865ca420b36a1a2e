"""A head's matrices stored in 8 bits: whole numbers, and a scale for every 32 of a row.

The numbers are those of GGUF's Q8_0, to which a CPU rounds a head when it is loaded; so a head that
is stored like this drafts the same bits there as one that is stored in floats. The files name
things as compressed-tensors does: `weight` in int8, `weight_scale` in float16.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float16, Int8
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.kernels.quantise import blocks_from_float

__all__ = ["QUANTIZATION", "rounded", "unrounded"]

_GROUP = 32
_SUFFIX = "_scale"
QUANTIZATION: Final[dict[str, object]] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": _GROUP,
                "dynamic": False,
            },
        }
    },
}
"""What a config.json says of such a head; of quantizations, this one is known."""


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round matrices to 8 bits; vectors, and rows of no whole groups, become bfloat16.

    Args:
        tensors: Floats, by the names of their files.

    Returns:
        Of each matrix its whole numbers and, under the name with `_scale`, their scales.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[1] % _GROUP == 0:
            found[name], found[name + _SUFFIX] = _blocks(tensor.float())
        else:
            found[name] = tensor.to(torch.bfloat16)
    return found


def _blocks(
    weight: Float[Tensor, "outputs inputs"],
) -> tuple[Int8[Tensor, "outputs inputs"], Float16[Tensor, "outputs groups"]]:
    raw = blocks_from_float(weight.contiguous().numpy(), "Q8_0").reshape(-1, 2 + _GROUP)
    scales = np.ascontiguousarray(raw[:, :2]).view(np.float16).reshape(len(weight), -1)
    numbers = np.ascontiguousarray(raw[:, 2:]).view(np.int8).reshape(tuple(weight.shape))
    return torch.from_numpy(numbers), torch.from_numpy(scales)


def unrounded(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of a head that may be stored in 8 bits; other tensors as they are.

    Args:
        stored: As the files have them.

    Raises:
        ModelFormatError: Numbers without their scales, or of another shape.
    """
    found = {name: tensor for name, tensor in stored.items() if tensor.dtype != torch.int8}
    for name, numbers in stored.items():
        if numbers.dtype != torch.int8:
            continue
        scales = found.pop(name + _SUFFIX, None)
        if scales is None or (*scales.shape[:1], scales.shape[-1] * _GROUP) != (*numbers.shape,):
            raise ModelFormatError(
                f"{name!r} has 8 bits and no scale for every {_GROUP} of them: fetch it again, or "
                "give a head in floats"
            )
        found[name] = numbers.float() * scales.float().repeat_interleave(_GROUP, dim=1)
    return found
