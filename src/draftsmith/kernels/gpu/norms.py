"""RMSNorm as a kernel of its own, for rows that no product has just made: a draft head's inputs.

A program norms one line. Its sum runs over blocks of the line in their order, so that a line has
the same bits whatever stands beside it.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait

__all__ = ["norm"]

_BLOCK = 1024


@no_type_check
@triton.jit
def _norm(
    lines,
    index,
    weight,
    out,
    out_stride,
    epsilon,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_INDEX: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row = tl.program_id(0)
    line = row
    if HAS_INDEX:
        line = tl.load(index + row)
    columns = tl.arange(0, BLOCK)
    source = lines + line.to(tl.int64) * WIDTH
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, WIDTH, BLOCK):
        is_column = begin + columns < WIDTH
        values = tl.load(source + begin + columns, mask=is_column, other=0.0).to(tl.float32)
        squares += values * values
    root = tl.rsqrt(tl.sum(squares, axis=0) / WIDTH + epsilon)
    factors_of = weight + row % GROUPS * WIDTH
    to = out + row.to(tl.int64) * out_stride
    for begin in range(0, WIDTH, BLOCK):
        is_column = begin + columns < WIDTH
        values = tl.load(source + begin + columns, mask=is_column, other=0.0).to(tl.float32)
        factors = tl.load(factors_of + begin + columns, mask=is_column, other=0.0).to(tl.float32)
        normed = (values * root * factors).to(out.dtype.element_ty)
        tl.store(to + begin + columns, normed, mask=is_column)


def norm(
    lines: Float[Tensor, "lines width"],
    weight: Float[Tensor, "groups width"],
    out: Float[Tensor, "rows width"],
    epsilon: float,
    index: Int[Tensor, " rows"] | None = None,
) -> None:
    """RMSNorm of some lines (Zhang & Sennrich, arXiv:1910.07467).

    Args:
        lines: Contiguous.
        weight: Contiguous; row r of the outcome has that of group r modulo their number.
        out: What is written; its rows are contiguous, and may lie apart.
        epsilon: Added to the mean of squares.
        index: Which line each row is; None is one after the other.
    """
    rows, width = out.shape
    assert out.stride(1) == 1
    assert lines.is_contiguous()
    assert weight.is_contiguous()
    is_chained = CHAINED and lines.is_cuda
    _norm[(rows,)](
        lines,
        lines if index is None else index,
        weight,
        out,
        out.stride(0),
        epsilon,
        WIDTH=width,
        GROUPS=len(weight),
        BLOCK=min(_BLOCK, triton.next_power_of_2(width)),
        HAS_INDEX=index is not None,
        IS_CHAINED=is_chained,
        **launch_options(4, is_chained=is_chained),
    )
