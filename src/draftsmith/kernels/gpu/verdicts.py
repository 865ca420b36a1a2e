"""What stands between the passes of a round: the best tokens, the verdict, what comes next.

Nothing here waits for the host, so that a whole round is one CUDA graph. The plain twin of the
verdict is `engine/rounds/verdicts.py`; of the best tokens, `core.laws.best_tokens`.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.limits import best_of

__all__ = ["Bests", "State", "best_parts", "prepare", "settle", "take_draft"]

_IDS = 8192
"""Of one program; what a row comes to does not depend on it."""


class State(NamedTuple):
    """The sequences of a batch between two rounds, int32."""

    lengths: Int[Tensor, " batch"]
    """Committed tokens; the newest is in no cache yet."""
    newest: Int[Tensor, " batch"]
    previous: Int[Tensor, " batch"]
    """The token before the newest."""
    is_live: Int[Tensor, " batch"]
    """1, or 0 for padding."""


class Bests(NamedTuple):
    """The best of each part of some rows of logits."""

    highs: Float[Tensor, "rows parts"]
    ids: Int[Tensor, "rows parts"]


@no_type_check
@triton.jit
def _best_parts(
    logits,
    highs,
    ids,
    num_columns,
    vocab_size,
    IDS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, part = tl.program_id(0), tl.program_id(1)
    columns = part * IDS + tl.arange(0, IDS)
    values = tl.load(
        logits + row.to(tl.int64) * num_columns + columns,
        mask=columns < vocab_size,
        other=float("-inf"),
    )
    is_nan = values != values
    high = tl.max(tl.where(is_nan, float("-inf"), values), axis=0)
    first = tl.min(tl.where(values == high, columns, 2147483647), axis=0)
    high = tl.where(tl.sum(is_nan.to(tl.int32), axis=0) > 0, float("nan"), high)
    place = row * tl.num_programs(1) + part
    tl.store(highs + place, high)
    tl.store(ids + place, first)


def best_parts(logits: Float[Tensor, "rows columns"], vocab_size: int) -> Bests:
    """The largest logit of each part of each row, and the lowest id that has it.

    Args:
        logits: Float32, contiguous.
        vocab_size: Ids that count, the first columns.

    Returns:
        The bests; a part with NaN has NaN.
    """
    rows, columns = logits.shape
    vocab_size = min(vocab_size, columns)
    parts = -(-vocab_size // _IDS)
    found = Bests(logits.new_empty(rows, parts), logits.new_empty(rows, parts, dtype=torch.int32))
    is_chained = CHAINED and logits.is_cuda
    _best_parts[(rows, parts)](
        logits,
        *found,
        columns,
        vocab_size,
        IDS=_IDS,
        IS_CHAINED=is_chained,
        **launch_options(8, is_chained=is_chained),
    )
    return found


@no_type_check
@triton.jit
def _best(highs, ids, row, PARTS: tl.constexpr, PADDED: tl.constexpr):
    """The best id of a row, the lowest of equals; -1 for a row that is no distribution."""
    _high, token, is_law = best_of(highs, ids, row, PARTS, PADDED)
    return tl.where(is_law, token, -1)


@no_type_check
@triton.jit
def _prepare(
    lengths,
    newest,
    previous,
    is_live,
    starts,
    widths,
    tokens,
    draft_starts,
    draft_widths,
    draft_tokens,
    draft_vocab_size,
    BATCH: tl.constexpr,
    GAMMA: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    length, live = tl.load(lengths + one), tl.load(is_live + one)
    tl.store(starts + one, length - 1)
    tl.store(widths + one, live * (GAMMA + 1))
    tl.store(tokens + one * (GAMMA + 1), tl.load(newest + one))
    if GAMMA > 0:
        # Ids that a draft with fewer does not have are 0 to it, as in `Follower`.
        older, newer = tl.load(previous + one), tl.load(newest + one)
        tl.store(draft_tokens + 2 * one, tl.where(older < draft_vocab_size, older, 0))
        tl.store(draft_tokens + 2 * one + 1, tl.where(newer < draft_vocab_size, newer, 0))
        # Both last tokens first: the older one may be in no cache of the draft's yet.
        tl.store(draft_starts + one, length - 2)
        tl.store(draft_widths + one, live * 2)
        for step in tl.static_range(1, GAMMA):
            tl.store(draft_starts + step * BATCH + one, length - 1 + step)
            tl.store(draft_widths + step * BATCH + one, live)


def prepare(
    state: State,
    check: tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Int[Tensor, "batch rows"]],
    draft: tuple[Int[Tensor, "gamma batch"], Int[Tensor, "gamma batch"], Int[Tensor, "batch two"]],
    draft_vocab_size: int,
) -> None:
    """Write what the passes of a round begin with.

    Args:
        state: Between the rounds.
        check: Starts, widths and tokens of the target's pass; the first token is written.
        draft: Starts and widths of the draft's passes, and the tokens of the first.
        draft_vocab_size: Ids that the draft has; others are 0 to it.
    """
    batch, rows = check[2].shape
    is_chained = CHAINED and state.lengths.is_cuda
    _prepare[(batch,)](
        *state,
        *check,
        *draft,
        draft_vocab_size,
        BATCH=batch,
        GAMMA=rows - 1,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )


@no_type_check
@triton.jit
def _take_draft(
    highs,
    ids,
    tokens,
    next_tokens,
    per_sequence,
    step,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    best = _best(highs, ids, one * per_sequence + per_sequence - 1, PARTS, PADDED)
    # A draft may be wrong, and is where its logits are none.
    best = tl.maximum(best, 0)
    tl.store(tokens + one * ROWS + step, best)
    tl.store(next_tokens + one, best)


def take_draft(
    bests: Bests,
    tokens: Int[Tensor, "batch rows"],
    next_tokens: Int[Tensor, " batch"],
    step: int,
) -> None:
    """Append a drafted token to each sequence.

    Args:
        bests: Of the draft's pass, the last row of each sequence counts.
        tokens: Of the target's pass; column `step` is written.
        next_tokens: Of the draft's next pass.
        step: How many tokens are drafted with this one.
    """
    batch, rows = tokens.shape
    parts = bests.highs.shape[1]
    is_chained = CHAINED and tokens.is_cuda
    _take_draft[(batch,)](
        *bests,
        tokens,
        next_tokens,
        len(bests.highs) // batch,
        step,
        ROWS=rows,
        PARTS=parts,
        PADDED=1 << (parts - 1).bit_length(),
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )


@no_type_check
@triton.jit
def _settle(
    highs,
    ids,
    tokens,
    lengths,
    newest,
    previous,
    is_live,
    found,
    nums,
    history,
    capacity,
    GAMMA: tl.constexpr,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    HAS_NUMS: tl.constexpr,
    HAS_HISTORY: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    one = tl.program_id(0)
    ROWS: tl.constexpr = GAMMA + 1
    live, length = tl.load(is_live + one), tl.load(lengths + one)
    num = live * 0 + GAMMA
    if HAS_NUMS:
        num = tl.load(nums + one)
    to = found + one * (2 * ROWS)
    before = tl.load(tokens + one * ROWS)
    emitted, last, kept, is_going = before, before, before * 0, before * 0 + 1
    for step in tl.static_range(ROWS):
        best = _best(highs, ids, one * ROWS + step, PARTS, PADDED)
        tl.store(to + step, best)
        emitted = tl.where(is_going == 1, best, emitted)
        last = tl.where(is_going == 1, before, last)
        if HAS_HISTORY:
            to_text = history + one.to(tl.int64) * capacity + length + step
            tl.store(to_text, best, mask=is_going * live == 1)
        if step < GAMMA:
            drafted = tl.load(tokens + one * ROWS + step + 1)
            drafted = tl.where(step < num, drafted, -1)
            tl.store(to + ROWS + step, drafted)
            is_going = is_going * ((drafted == best) & (drafted >= 0)).to(tl.int32)
            kept += is_going
            before = drafted
    tl.store(to + ROWS + GAMMA, kept)
    tl.store(lengths + one, length + live * (kept + 1))
    # Where no token is allowed the host ends the sequence, a round later.
    tl.store(newest + one, tl.maximum(emitted, 0))
    tl.store(previous + one, last)


def settle(
    bests: Bests,
    tokens: Int[Tensor, "batch rows"],
    state: State,
    found: Int[Tensor, "batch twice_rows"],
    nums: Int[Tensor, " batch"] | None = None,
    history: Int[Tensor, "batch capacity"] | None = None,
) -> None:
    """The verdicts on a batch, committed.

    Args:
        bests: Of the target's pass.
        tokens: Of that pass: the newest token, and the drafted ones.
        state: Moved on by what is kept, and the emitted token.
        found: What the host reads: the target's tokens, the drafted ones (-1 where none is), and
            how many are kept.
        nums: How many of the drafted ones count; None is all.
        history: The committed tokens, which those of this round are added to.
    """
    batch, rows = tokens.shape
    parts = bests.highs.shape[1]
    is_chained = CHAINED and tokens.is_cuda
    _settle[(batch,)](
        *bests,
        tokens,
        *state,
        found,
        tokens if nums is None else nums,
        tokens if history is None else history,
        0 if history is None else history.shape[1],
        GAMMA=rows - 1,
        PARTS=parts,
        PADDED=1 << (parts - 1).bit_length(),
        HAS_NUMS=nums is not None,
        HAS_HISTORY=history is not None,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )
