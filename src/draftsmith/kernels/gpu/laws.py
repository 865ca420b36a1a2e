"""The sampling transform on a GPU: no sort of a vocabulary, and nothing that the host must read.

What top-k and top-p leave of a law is a set of pairs (score, id): the likeliest up to one pair, the
limit. Its sums are of whole numbers, which know no order, so that a row's law has the same bits
whatever stands beside it. Bins by distance from the best tell where the limit lies; the tokens
there are gathered, and sorted by one program. Where they are too many, or beyond all bins, it
searches the whole row for the limit, bit by bit.

Equal scores are cut at the lowest ids, as in `core.laws`.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from draftsmith.kernels.gpu.columns import Columns
from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.limits import (
    EVERY,
    ONE,
    best_of,
    crossing,
    distance,
    near_limit,
    row_limit,
    whole,
)
from draftsmith.kernels.gpu.verdicts import Bests, best_parts

__all__ = ["laws"]

_IDS = 4096
"""Of one program."""
_NEAR = 2048
"""Tokens that one program sorts."""
_BINS = 1024
"""By distance from the best; what lies farther is in none."""
_BINS_OF_ONE = tl.constexpr(32.0)
"""Bins to a unit of the logarithm."""


@no_type_check
@triton.jit
def _bin_of(distances) -> tl.tensor:
    """Which bin a token stands in; it rises with the distance."""
    return (distances * _BINS_OF_ONE).to(tl.int32)


@no_type_check
@triton.jit
def _weigh(
    logits,
    highs,
    ids,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    totals,
    tallies,
    masses,
    num_columns,
    vocab_size,
    per_sequence,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    IDS: tl.constexpr,
    BINS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    """The whole weight of a part of a row, and what its bins hold of it."""
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, part = tl.program_id(0), tl.program_id(1)
    one = row // per_sequence
    best, _, is_law = best_of(highs, ids, row, PARTS, PADDED)
    temperature = tl.load(temperatures + one)
    top_k, top_p = tl.load(top_ks + one), tl.load(top_ps + one)
    # A point mass is known already.
    if is_law & (temperature > 0.0):
        columns = part * IDS + tl.arange(0, IDS)
        is_column = columns < vocab_size
        values = tl.load(
            logits + row.to(tl.int64) * num_columns + columns, mask=is_column, other=float("-inf")
        )
        distances = distance(values, best, temperature)
        weights = tl.exp(-distances)
        if ((top_k > 0) & (top_k < vocab_size)) | (top_p < 1.0):
            is_near = is_column & (distances * _BINS_OF_ONE < BINS)
            bins = row * BINS + tl.where(is_near, _bin_of(tl.where(is_near, distances, 0.0)), 0)
            tl.atomic_add(tallies + bins, 1, mask=is_near, sem="relaxed")
            tl.atomic_add(masses + bins, whole(weights), mask=is_near, sem="relaxed")
        else:
            # Nothing but min-p cuts: what it leaves is the law.
            weights = tl.where(weights >= tl.load(min_ps + one), weights, 0.0)
        total = tl.sum(tl.where(is_column, whole(weights), 0), axis=0)
        tl.store(totals + row * tl.num_programs(1) + part, total)


@no_type_check
@triton.jit
def _gather(
    logits,
    highs,
    ids,
    temperatures,
    top_ks,
    top_ps,
    totals,
    tallies,
    masses,
    counts,
    near,
    num_columns,
    vocab_size,
    per_sequence,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    TOTALS: tl.constexpr,
    PADDED_TOTALS: tl.constexpr,
    IDS: tl.constexpr,
    BINS: tl.constexpr,
    NEAR: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    """The tokens of a part of a row among which the limit lies."""
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, part = tl.program_id(0), tl.program_id(1)
    one = row // per_sequence
    best, _, is_law = best_of(highs, ids, row, PARTS, PADDED)
    temperature = tl.load(temperatures + one)
    top_k, top_p = tl.load(top_ks + one), tl.load(top_ps + one)
    has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
    if is_law & (temperature > 0.0) & (has_k | has_p):
        parts = tl.arange(0, PADDED_TOTALS)
        of_part = tl.load(totals + row * TOTALS + parts, mask=parts < TOTALS, other=0)
        first, last, _before = crossing(
            tallies + row * BINS,
            masses + row * BINS,
            tl.sum(of_part, axis=0),
            top_k,
            top_p,
            has_k,
            BINS,
        )
        columns = part * IDS + tl.arange(0, IDS)
        is_column = columns < vocab_size
        values = tl.load(
            logits + row.to(tl.int64) * num_columns + columns, mask=is_column, other=float("-inf")
        )
        distances = distance(values, best, temperature)
        is_near = is_column & (distances * _BINS_OF_ONE < BINS)
        bins = _bin_of(tl.where(is_near, distances, 0.0))
        is_wanted = is_near & (bins >= first) & (bins <= last)
        count = tl.sum(is_wanted.to(tl.int32), axis=0)
        if count > 0:
            places = tl.cumsum(is_wanted.to(tl.int32), axis=0) - 1
            # Whose tokens come first does not matter: they are sorted.
            places += tl.atomic_add(counts + row, count, sem="relaxed")
            pairs = (distances.to(tl.int32, bitcast=True).to(tl.int64) << 32) | columns
            to = near + row.to(tl.int64) * NEAR + places
            tl.store(to, pairs, mask=is_wanted & (places < NEAR))


@no_type_check
@triton.jit
def _limit(
    logits,
    highs,
    ids,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    totals,
    tallies,
    masses,
    counts,
    near,
    limits,
    norms,
    num_columns,
    vocab_size,
    per_sequence,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    TOTALS: tl.constexpr,
    PADDED_TOTALS: tl.constexpr,
    IDS: tl.constexpr,
    BINS: tl.constexpr,
    NEAR: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    """The last pair that a law keeps, if it is one, and what its weights add up to."""
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row = tl.program_id(0)
    one = row // per_sequence
    best, token, is_law = best_of(highs, ids, row, PARTS, PADDED)
    temperature, min_p = tl.load(temperatures + one), tl.load(min_ps + one)
    top_k, top_p = tl.load(top_ks + one), tl.load(top_ps + one)
    has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
    limit_key, limit_token = tl.zeros((), tl.int32) - 1, token
    kept = whole(tl.zeros((), tl.float32) + 1.0)
    if is_law:
        # A point mass on the first of the best.
        limit_key += 1
    if is_law & (temperature > 0.0):
        limit_key += EVERY
        limit_token = tl.zeros((), tl.int32) + EVERY
        parts = tl.arange(0, PADDED_TOTALS)
        of_part = tl.load(totals + row * TOTALS + parts, mask=parts < TOTALS, other=0)
        kept = tl.sum(of_part, axis=0)
        if has_k | has_p:
            first, _last, base = crossing(
                tallies + row * BINS, masses + row * BINS, kept, top_k, top_p, has_k, BINS
            )
            limit_key, limit_token, found, is_known = near_limit(
                near + row.to(tl.int64) * NEAR,
                tl.load(counts + row),
                first,
                base,
                kept,
                top_k,
                top_p,
                has_k,
                has_p,
                min_p,
                NEAR,
            )
            kept = found
            if not is_known:
                limit_key, limit_token, kept = row_limit(
                    logits + row.to(tl.int64) * num_columns,
                    best,
                    temperature,
                    vocab_size,
                    top_k,
                    top_p,
                    has_k,
                    has_p,
                    min_p,
                    IDS,
                )
    tl.store(limits + 2 * row, limit_key)
    tl.store(limits + 2 * row + 1, limit_token)
    tl.store(norms + row, (kept.to(tl.float64) / ONE).to(tl.float32))


@no_type_check
@triton.jit
def _write(
    logits,
    highs,
    ids,
    temperatures,
    min_ps,
    limits,
    norms,
    probs,
    num_columns,
    vocab_size,
    num_ids,
    per_sequence,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    IDS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    """The law of a part of a row."""
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, part = tl.program_id(0), tl.program_id(1)
    one = row // per_sequence
    best, _, is_law = best_of(highs, ids, row, PARTS, PADDED)
    best = tl.where(is_law, best, 0.0)
    temperature = tl.load(temperatures + one)
    temperature = tl.where(temperature == 0.0, 1.0, temperature)
    columns = part * IDS + tl.arange(0, IDS)
    is_column = columns < vocab_size
    values = tl.load(
        logits + row.to(tl.int64) * num_columns + columns, mask=is_column, other=float("-inf")
    )
    distances = distance(values, best, temperature)
    weights = tl.exp(-distances)
    keys = distances.to(tl.int32, bitcast=True)
    limit_key, limit_token = tl.load(limits + 2 * row), tl.load(limits + 2 * row + 1)
    is_kept = (keys < limit_key) | ((keys == limit_key) & (columns <= limit_token))
    is_kept &= is_column & (weights >= tl.load(min_ps + one))
    law = tl.where(is_kept, weights / tl.load(norms + row), 0.0)
    tl.store(probs + row.to(tl.int64) * num_ids + columns, law, mask=columns < num_ids)


def laws(
    logits: Float[Tensor, "rows columns"],
    columns: Columns,
    vocab_size: int,
    bests: Bests | None = None,
) -> Float[Tensor, "rows vocab"]:
    """The laws of some rows, each by its own sequence's numbers; can be captured.

    Args:
        logits: Float32, contiguous; as many rows of each sequence, one sequence after the other.
        columns: What each sequence asks for.
        vocab_size: Ids of a law; the first columns, and none where there are fewer.
        bests: Of the same logits, where they are known.

    Returns:
        Float32; zeros for a row that is no distribution.
    """
    rows, num_columns = logits.shape
    known = min(vocab_size, num_columns)
    bests = bests or best_parts(logits, known)
    parts, tiles = bests.highs.shape[1], -(-known // _IDS)
    is_chained = CHAINED and logits.is_cuda
    sizes = {
        "PARTS": parts,
        "PADDED": triton.next_power_of_2(parts),
        "IDS": _IDS,
        "IS_CHAINED": is_chained,
        **launch_options(8, is_chained=is_chained),
    }
    whole_row = {"TOTALS": tiles, "PADDED_TOTALS": triton.next_power_of_2(tiles)}
    new = logits.new_empty
    totals, near = (new(rows, int(count), dtype=torch.int64) for count in (tiles, _NEAR))
    # One call makes all the zeros.
    zeros = logits.new_zeros(rows * (_BINS + _BINS // 2 + 1), dtype=torch.int64)
    masses, rest = zeros.split((rows * _BINS, rows * (_BINS // 2 + 1)))
    tallies, counts = rest.view(torch.int32).split((rows * _BINS, 2 * rows))
    limits, norms = new(rows, 2, dtype=torch.int32), new(rows)
    probs = new(rows, vocab_size)
    numbers = num_columns, known, rows // len(columns.temperatures)
    held = tallies, masses
    _weigh[(rows, tiles)](logits, *bests, *columns, totals, *held, *numbers, BINS=_BINS, **sizes)
    cuts = {"BINS": _BINS, "NEAR": _NEAR}
    _gather[(rows, tiles)](
        logits,
        *bests,
        *columns[:3],
        totals,
        *held,
        counts,
        near,
        *numbers,
        **cuts,
        **whole_row,
        **sizes,
    )
    _limit[(rows,)](
        logits,
        *bests,
        *columns,
        totals,
        *held,
        counts,
        near,
        limits,
        norms,
        *numbers,
        **cuts,
        **whole_row,
        **sizes,
    )
    _write[(rows, triton.cdiv(vocab_size, _IDS))](
        logits,
        *bests,
        columns.temperatures,
        columns.min_ps,
        limits,
        norms,
        probs,
        num_columns,
        known,
        vocab_size,
        numbers[2],
        **sizes,
    )
    return probs
