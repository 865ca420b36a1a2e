"""Plain numpy twins of the packed formats: GGUF blocks to float32, and float32 to blocks.

The arithmetic is that of the `gguf` package, which does it here.
"""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

import gguf
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ModelFormatError

__all__ = ["QUANTISABLE", "blocks_from_float", "floats_from_blocks"]

QUANTISABLE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
"""What float weights may be rounded to: eight, four or five bits, in groups of 32."""


def floats_from_blocks(
    raw: np.ndarray, format: str, num_outputs: int, num_inputs: int
) -> Float[Tensor, "outputs inputs"]:
    """Every weight in float32, from the file's bytes."""
    kind = gguf.GGMLQuantizationType[format]
    weights = gguf.dequantize(raw.reshape(num_outputs, -1), kind)
    return torch.from_numpy(np.array(weights, np.float32).reshape(num_outputs, num_inputs))


def blocks_from_float(weights: np.ndarray, format: str) -> np.ndarray:
    """Round float32 weights `[outputs, inputs]` to blocks, as bytes.

    Raises:
        ModelFormatError: If that format is not one to round to.
    """
    if format not in QUANTISABLE:
        known = ", ".join(QUANTISABLE)
        raise ModelFormatError(f"weights can be rounded to {known}, not to {format}")
    return gguf.quantize(weights, gguf.GGMLQuantizationType[format]).reshape(-1)
