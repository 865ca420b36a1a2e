"""What a round leaves for a draft head: the tokens that it has committed, and where they stand.

A head reads the target's states of tokens that were kept; how many that are is known on the device
alone. So every round leaves the states of all that it has checked, and the next one reads the first
of them. Nothing here waits for the host.
"""

from typing import NamedTuple, no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.verdicts import State

__all__ = ["Fresh", "Resumed", "leave", "resume"]


class Fresh(NamedTuple):
    """Of each sequence, the tokens that a head has not read yet: those before the newest."""

    features: Float[Tensor, "batch most_rows width"]
    """What the head makes of the target's states of them."""
    tokens: Int[Tensor, "batch most_rows"]
    """The token behind each of them."""
    nums: Int[Tensor, " batch"]
    """How many; one or more."""


class Resumed(NamedTuple):
    """The rows of a head's first pass in a round."""

    starts: Int[Tensor, " batch"]
    widths: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch rows"]
    lasts: Int[Tensor, " batch"]
    """The row of each sequence that foretells, among those of all."""


@no_type_check
@triton.jit
def _resume(
    lengths,
    is_live,
    fresh,
    nums,
    starts,
    widths,
    tokens,
    lasts,
    fresh_rows,
    ROWS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    num = tl.load(nums + one)
    tl.store(starts + one, tl.load(lengths + one) - 1 - num)
    tl.store(widths + one, tl.load(is_live + one) * num)
    tl.store(lasts + one, one * ROWS + num - 1)
    for row in tl.static_range(ROWS):
        tl.store(tokens + one * ROWS + row, tl.load(fresh + one * fresh_rows + row))


def resume(state: State, fresh: Fresh, to: Resumed) -> None:
    """Write where a head goes on.

    Args:
        state: Between the rounds.
        fresh: What the round before has left; no more of each sequence than `to` has rows.
        to: What is written; padding has no rows.
    """
    batch, rows = to.tokens.shape
    is_chained = CHAINED and to.tokens.is_cuda
    _resume[(batch,)](
        state.lengths,
        state.is_live,
        fresh.tokens,
        fresh.nums,
        *to,
        fresh.tokens.shape[1],
        ROWS=rows,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )


@no_type_check
@triton.jit
def _leave(
    found,
    is_live,
    tokens,
    nums,
    fresh_rows,
    ROWS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    kept = tl.load(found + one * (2 * ROWS) + 2 * ROWS - 1)
    tl.store(nums + one, tl.load(is_live + one) * kept + 1)
    for row in tl.static_range(ROWS):
        # Where no token is allowed the host ends the sequence, a round later.
        point = tl.maximum(tl.load(found + one * (2 * ROWS) + row), 0)
        tl.store(tokens + one * fresh_rows + row, point)


def leave(found: Int[Tensor, "batch twice_rows"], state: State, fresh: Fresh) -> None:
    """Leave the tokens of a round that is settled.

    Args:
        found: As `verdicts.settle` writes it.
        state: Of the same round.
        fresh: Whose tokens and numbers are written.
    """
    batch, twice = found.shape
    is_chained = CHAINED and found.is_cuda
    _leave[(batch,)](
        found,
        state.is_live,
        fresh.tokens,
        fresh.nums,
        fresh.tokens.shape[1],
        ROWS=twice // 2,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )
