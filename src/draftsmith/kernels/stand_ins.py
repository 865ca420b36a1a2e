"""Tensor formats without a kernel of ours: every value is kept, in a format that has one.

| file | held as | bytes of the file, times |
|---|---|---|
| IQ4_NL | Q8_0 | 1.9 |
| Q3_K | Q6_K | 1.9 |
| all others that the `gguf` package can dequantise | F32 | 7 (IQ4_XS) to 20 (IQ1_S) |

IQ4_NL is a table of 16 whole numbers below 128, and Q3_K has the scales of Q6_K over smaller
codes, so that the very numbers have a place in the other format's blocks. The rest would lose bits
in any format that the kernels know but float32.
"""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

import numpy as np
from numpy.typing import NDArray

from draftsmith.errors import ModelFormatError
from draftsmith.kernels.matrix import FORMATS, BlockFormat

__all__ = ["converted", "held_format", "stored_block"]

_IQ4_NL_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8
)
"""The codes' meaning (ggml-common.h, `kvalues_iq4nl`)."""


def held_format(name: str, format: str) -> str:
    """The format that a tensor is held in; its own, if there is a kernel for it.

    Args:
        name: The tensor's, for the message.
        format: A GGUF tensor type.

    Raises:
        ModelFormatError: Nobody knows how to read it.
    """
    if format in FORMATS:
        return format
    if format in _REPACKED:
        return _REPACKED[format][0]
    from gguf import quants  # here, because it takes 0.1 s and most files never need it

    known = {kind.name for kind in quants._type_traits}
    if format not in known:
        raise ModelFormatError(
            f"tensor {name!r} is {format}, which cannot be dequantised; convert the model to one "
            f"of {', '.join(FORMATS)}"
        )
    return "F32"


def stored_block(format: str) -> BlockFormat:
    """How a format, with a kernel or without, cuts the rows of a file."""
    if format in FORMATS:
        return FORMATS[format]
    import gguf

    return BlockFormat(*gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]])


def converted(raw: NDArray[np.uint8], format: str, label: str) -> NDArray[np.uint8]:
    """Whole blocks of a format, as blocks of the one that `held_format` names.

    Raises:
        ModelFormatError: A block that means no finite number; `label` is named.
    """
    if format in FORMATS:
        return raw
    if format in _REPACKED:
        return _REPACKED[format][1](raw)
    import gguf

    kind = gguf.GGMLQuantizationType[format]
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    values = gguf.quants.dequantize(raw.reshape(-1, block_bytes), kind)
    if not np.isfinite(values).all():
        raise ModelFormatError(
            f"{label} is corrupt: a block ({format}) means no finite number; fetch the file again"
        )
    return np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)


def _iq4_nl_to_q8_0(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A scale and 32 codes of 4 bits to the same scale and 32 of 8."""
    blocks = raw.reshape(-1, 18)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return np.concatenate([blocks[:, :2], _IQ4_NL_VALUES[codes].view(np.uint8)], axis=1).reshape(-1)


def _q3_k_to_q6_k(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """256 codes of 3 bits and 16 scales of 6, to 256 of 6 bits and 16 of 8.

    A block of Q3_K: 32 bytes of high bits, 64 of low ones, 12 of scales, a float16. One of Q6_K:
    128 bytes of low halves, 64 of high ones, 16 of scales, a float16 (ggml-common.h).
    """
    blocks = raw.reshape(-1, 110)
    high, low, packed, scale = np.split(blocks, [32, 96, 108], axis=1)
    shifts = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    # Weight 128 n + 32 j + l has its low bits in byte 32 n + l, its high bit in bit 4 n + j of l.
    two = (low.reshape(-1, 2, 1, 32) >> (2 * shifts)) & 3
    bits = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1)
    one = (high.reshape(-1, 1, 1, 32) >> bits) & 1
    # A code is 0 to 7 and means 4 less; Q6_K's is 0 to 63 and means 32 less.
    codes: NDArray[np.uint8] = ((two | (one << 2)) + 28).astype(np.uint8)
    return np.concatenate([_q6_k_codes(codes), _q3_k_scales(packed), scale], axis=1).reshape(-1)


def _q6_k_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes `[blocks, 2, 4, 32]` in the order of Q6_K: low halves, then pairs of high bits."""
    low = (codes[:, :, :2] & 15) | ((codes[:, :, 2:] & 15) << 4)
    top = codes >> 4
    high = top[:, :, 0] | (top[:, :, 1] << 2) | (top[:, :, 2] << 4) | (top[:, :, 3] << 6)
    parts = [part.reshape(len(codes), -1).astype(np.uint8) for part in (low, high)]
    return np.concatenate(parts, axis=1)


def _q3_k_scales(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 scales of 6 bits in 12 bytes: low halves in the first 8, high pairs in the last 4."""
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    shifts = np.arange(4, dtype=np.uint8).reshape(1, 4, 1) * 2
    high = ((packed[:, None, 8:] >> shifts) & 3).reshape(-1, 16)
    # Modulo 256: two's complement.
    return (low | (high << 4)).astype(np.uint8) - np.uint8(32)


_REPACKED = {"IQ4_NL": ("Q8_0", _iq4_nl_to_q8_0), "Q3_K": ("Q6_K", _q3_k_to_q6_k)}
