"""Prompt lookup on a GPU: each sequence's text lies on the device, and is searched there.

One program compares the end of a text with every place in it. The plain twin, which keeps an index
instead, is `drafters.prompt_lookup`.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.verdicts import State

__all__ = ["look_up"]

_PLACES = 1024
"""Compared at once."""


@no_type_check
@triton.jit
def _look_up(
    history,
    lengths,
    is_live,
    tokens,
    widths,
    nums,
    capacity,
    FEWEST: tl.constexpr,
    MOST: tl.constexpr,
    GAMMA: tl.constexpr,
    PADDED: tl.constexpr,
    PLACES: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    length, live = tl.load(lengths + one), tl.load(is_live + one)
    line = history + one.to(tl.int64) * capacity
    best = tl.zeros((), tl.int64) - 1
    for begin in range(0, length, PLACES):
        ends = begin + tl.arange(0, PLACES)
        is_going = (ends >= FEWEST) & (ends < length)
        matched = ends * 0
        for step in tl.static_range(MOST):
            last = tl.load(line + length - 1 - step, mask=length > step, other=-1)
            of_text = is_going & (ends > step)
            is_going = of_text & (tl.load(line + ends - 1 - step, mask=of_text, other=-2) == last)
            matched += is_going.to(tl.int32)
        # The longest, and of equals the newest.
        found = tl.where(matched >= FEWEST, (matched.to(tl.int64) << 32) | ends, -1)
        best = tl.maximum(best, tl.max(found, axis=0))
    end = best.to(tl.int32)
    num = tl.where(best >= 0, tl.minimum(GAMMA, length - end), 0) * live
    steps = tl.arange(0, PADDED)
    is_drafted = steps < num
    copied = tl.load(line + end + steps, mask=is_drafted, other=0)
    tl.store(tokens + one * (GAMMA + 1) + 1 + steps, copied, mask=steps < GAMMA)
    tl.store(widths + one, (num + 1) * live)
    tl.store(nums + one, num)


def look_up(
    history: Int[Tensor, "batch capacity"],
    state: State,
    tokens: Int[Tensor, "batch rows"],
    widths: Int[Tensor, " batch"],
    nums: Int[Tensor, " batch"],
    ngrams: tuple[int, int],
) -> None:
    """Copy what followed the longest earlier match of the last tokens.

    Args:
        history: The committed tokens of each sequence.
        state: Between the rounds.
        tokens: Of the target's pass; all columns but the first are written.
        widths: Of that pass: one for the newest token, and what is drafted.
        nums: Drafted tokens of each sequence.
        ngrams: Shortest match that is followed, and the longest that is told from longer ones.
    """
    batch, rows = tokens.shape
    fewest, most = ngrams
    is_chained = CHAINED and tokens.is_cuda
    _look_up[(batch,)](
        history,
        state.lengths,
        state.is_live,
        tokens,
        widths,
        nums,
        history.shape[1],
        FEWEST=fewest,
        MOST=most,
        GAMMA=rows - 1,
        PADDED=1 << (rows - 1).bit_length(),
        PLACES=_PLACES,
        IS_CHAINED=is_chained,
        **launch_options(4, is_chained=is_chained),
    )
