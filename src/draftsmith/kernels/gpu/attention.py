"""Attention of a few rows over a paged, ragged cache, cut along the cache in a fixed order.

A part is one page of keys. Every part is summed by itself, and the parts of a row in their order,
so that a row's bits depend on its own prefix alone: not on the rows beside it, other sequences, or
how long the longest of them is. The flow of parts is that of Flash-Decoding (Dao et al., 2023).
"""

from typing import NamedTuple, no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait

__all__ = ["PAGE", "Heads", "Pages", "Parts", "Places", "attend"]

PAGE = 64
"""Tokens of a page, and of a part."""
_LINES = 16
_PARTS_AT_ONCE = 16


class Places(NamedTuple):
    """Whose rows a pass runs: a group of `width` rows for each sequence."""

    starts: Int[Tensor, " batch"]
    """Tokens that each sequence holds already."""
    widths: Int[Tensor, " batch"]
    """Rows of its group that count; the others are padding, and write nothing."""
    tables: Int[Tensor, "batch most_pages"]
    """Its pages, in order."""
    width: int


class Pages(NamedTuple):
    """The cache of one layer."""

    keys: Float[Tensor, "pages kv_heads page head"]
    values: Float[Tensor, "pages kv_heads page head"]


class Heads(NamedTuple):
    """What is done to queries and keys before they meet."""

    cosines: Float[Tensor, "positions half"]
    """Of every position's angles, float32."""
    sines: Float[Tensor, "positions half"]
    query_norm: Float[Tensor, " head"] | None = None
    """RMSNorm of query heads, before they are turned (Qwen3)."""
    key_norm: Float[Tensor, " head"] | None = None
    epsilon: float = 0.0
    """Of the norms."""


class Parts(NamedTuple):
    """Room for what the parts of a pass come to."""

    sums: Float[Tensor, "parts rows heads head"]
    ends: Float[Tensor, "parts rows heads 2"]
    """The largest score of a part, and its sum of exponentials."""


@no_type_check
@triton.jit
def _normed(first, second, norm, elements, of_elements, epsilon, HEAD: tl.constexpr):
    """Both halves of some heads, after an RMSNorm over the two."""
    mean = (tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)) / HEAD
    roots = tl.rsqrt(mean + epsilon)[:, None]
    low = tl.load(norm + elements, mask=of_elements, other=0.0).to(tl.float32)
    high = tl.load(norm + HEAD // 2 + elements, mask=of_elements, other=0.0).to(tl.float32)
    return first * roots * low[None, :], second * roots * high[None, :]


@no_type_check
@triton.jit(do_not_specialize=["num_rows"])
def _attend_part(
    projected,
    keys,
    values,
    tables,
    starts,
    widths,
    cosines,
    sines,
    query_norm,
    key_norm,
    sums,
    ends,
    table_width,
    width,
    num_rows,
    scale,
    cap,
    epsilon,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    HALF: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    LINES: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_NORM: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    ALL: tl.constexpr = HEADS + 2 * KV_HEADS
    part, group_and_head, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group, kv_head = group_and_head // KV_HEADS, group_and_head % KV_HEADS
    page = tl.load(tables + group * table_width + part).to(tl.int64)
    start, real = tl.load(starts + group), tl.load(widths + group)
    lines = tile * LINES + tl.arange(0, LINES)
    place = lines // GROUP
    is_line = place < real
    position = start + place
    farthest = start + tl.minimum(real, (tile * LINES + LINES - 1) // GROUP + 1) - 1
    nearest = start + tile * LINES // GROUP
    is_wanted = (tile * LINES // GROUP < real) & (part * PAGE_SIZE <= farthest)
    if WINDOW > 0:
        is_wanted = is_wanted & ((part + 1) * PAGE_SIZE > nearest - WINDOW + 1)
    # Every new key is kept, also where no row of this tile sees it.
    is_keeper = (tile == 0) & (part * PAGE_SIZE < start + real) & ((part + 1) * PAGE_SIZE > start)
    if is_wanted | is_keeper:
        kind = projected.dtype.element_ty
        elements = tl.arange(0, HALF)
        of_elements = elements < HEAD // 2
        row = group * width + place
        head = kv_head * GROUP + lines % GROUP
        of_query = is_line[:, None] & of_elements[None, :]
        to_query = projected + (row * ALL + head).to(tl.int64)[:, None] * HEAD + elements[None, :]
        query_1 = tl.load(to_query, mask=of_query, other=0.0).to(tl.float32)
        query_2 = tl.load(to_query + HEAD // 2, mask=of_query, other=0.0).to(tl.float32)
        if HAS_NORM:
            query_1, query_2 = _normed(
                query_1, query_2, query_norm, elements, of_elements, epsilon, HEAD
            )
        wave = position.to(tl.int64)[:, None] * (HEAD // 2) + elements[None, :]
        cosine = tl.load(cosines + wave, mask=of_query, other=0.0)
        sine = tl.load(sines + wave, mask=of_query, other=0.0)
        turned_1 = (query_1 * cosine - query_2 * sine).to(kind)
        turned_2 = (query_2 * cosine + query_1 * sine).to(kind)
        # Keys and values: from the page, or new ones from the pass, which tile 0 keeps.
        tokens = tl.arange(0, PAGE_SIZE)
        at = part * PAGE_SIZE + tokens
        is_old, is_new = at < start, (at >= start) & (at < start + real)
        of_old = is_old[:, None] & of_elements[None, :]
        of_new = is_new[:, None] & of_elements[None, :]
        in_page = ((page * KV_HEADS + kv_head) * PAGE_SIZE + tokens)[:, None] * HEAD
        in_page += elements[None, :]
        key_1 = tl.load(keys + in_page, mask=of_old, other=0.0)
        key_2 = tl.load(keys + in_page + HEAD // 2, mask=of_old, other=0.0)
        value_1 = tl.load(values + in_page, mask=of_old, other=0.0)
        value_2 = tl.load(values + in_page + HEAD // 2, mask=of_old, other=0.0)
        if (part + 1) * PAGE_SIZE > start:
            new_row = group * width + at - start
            to_key = (new_row * ALL + HEADS + kv_head).to(tl.int64)[:, None] * HEAD
            to_key = projected + to_key + elements[None, :]
            new_1 = tl.load(to_key, mask=of_new, other=0.0).to(tl.float32)
            new_2 = tl.load(to_key + HEAD // 2, mask=of_new, other=0.0).to(tl.float32)
            if HAS_NORM:
                new_1, new_2 = _normed(new_1, new_2, key_norm, elements, of_elements, epsilon, HEAD)
            key_wave = at.to(tl.int64)[:, None] * (HEAD // 2) + elements[None, :]
            key_cosine = tl.load(cosines + key_wave, mask=of_new, other=0.0)
            key_sine = tl.load(sines + key_wave, mask=of_new, other=0.0)
            turned_key = (new_1 * key_cosine - new_2 * key_sine).to(kind)
            key_1 = tl.where(of_new, turned_key, key_1)
            turned_key = (new_2 * key_cosine + new_1 * key_sine).to(kind)
            key_2 = tl.where(of_new, turned_key, key_2)
            to_value = to_key + KV_HEADS * HEAD
            value_1 = tl.where(of_new, tl.load(to_value, mask=of_new, other=0.0), value_1)
            other = tl.load(to_value + HEAD // 2, mask=of_new, other=0.0)
            value_2 = tl.where(of_new, other, value_2)
            if is_keeper:
                tl.store(keys + in_page, key_1, mask=of_new)
                tl.store(keys + in_page + HEAD // 2, key_2, mask=of_new)
                tl.store(values + in_page, value_1, mask=of_new)
                tl.store(values + in_page + HEAD // 2, value_2, mask=of_new)
        scores = tl.dot(turned_1, tl.trans(key_1), input_precision="ieee")
        scores = tl.dot(turned_2, tl.trans(key_2), scores, input_precision="ieee") * scale
        if HAS_CAP:
            # tanh by exp, as it cannot overflow in this form.
            scores = cap * (1.0 - 2.0 / (tl.exp(2.0 * scores / cap) + 1.0))
        distance = position[:, None] - at[None, :]
        is_seen = (distance >= 0) & is_line[:, None]
        if WINDOW > 0:
            is_seen = is_seen & (distance < WINDOW)
        scores = tl.where(is_seen, scores, float("-inf"))
        largest = tl.max(scores, axis=1)
        base = tl.where(largest == float("-inf"), 0.0, largest)
        weights = tl.exp(scores - base[:, None])
        # What is not finite must not reach those who do not see it: nothing times it is NaN.
        is_fine_1 = tl.abs(value_1.to(tl.float32)) < float("inf")
        is_fine_2 = tl.abs(value_2.to(tl.float32)) < float("inf")
        num_fine = tl.sum(is_fine_1.to(tl.int32), axis=1) + tl.sum(is_fine_2.to(tl.int32), axis=1)
        value_1 = tl.where(is_fine_1, value_1, 0.0)
        value_2 = tl.where(is_fine_2, value_2, 0.0)
        lost = tl.sum((is_seen & (num_fine < 2 * HALF)[None, :]).to(tl.int32), axis=1) > 0
        total = tl.where(lost, float("nan"), tl.sum(weights, axis=1))
        weights = weights.to(kind)
        summed_1 = tl.dot(weights, value_1, input_precision="ieee")
        summed_2 = tl.dot(weights, value_2, input_precision="ieee")
        to = (part * num_rows + row).to(tl.int64) * HEADS + head
        to_sums = sums + to[:, None] * HEAD + elements[None, :]
        tl.store(to_sums, summed_1, mask=of_query)
        tl.store(to_sums + HEAD // 2, summed_2, mask=of_query)
        tl.store(ends + to * 2, base, mask=is_line)
        tl.store(ends + to * 2 + 1, total, mask=is_line)


@no_type_check
@triton.jit(do_not_specialize=["num_rows"])
def _join_parts(
    sums,
    ends,
    starts,
    widths,
    attended,
    width,
    num_rows,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    WINDOW: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    wait(IS_CHAINED)
    row, head = tl.program_id(0), tl.program_id(1)
    group, place = row // width, row % width
    elements = tl.arange(0, PADDED)
    is_element = elements < HEAD
    to = attended + (row * HEADS + head).to(tl.int64) * HEAD
    if place < tl.load(widths + group):
        position = tl.load(starts + group) + place
        first, last = 0, position // PAGE_SIZE + 1
        if WINDOW > 0:
            first = tl.maximum(position - WINDOW + 1, 0) // PAGE_SIZE
        largest = float("-inf")
        total = 0.0
        summed = tl.zeros((PADDED,), dtype=tl.float32)
        # From a multiple of what is taken at once: the order is the row's own.
        for begin in range(first // AT_ONCE * AT_ONCE, last, AT_ONCE):
            parts = begin + tl.arange(0, AT_ONCE)
            is_part = (parts >= first) & (parts < last)
            lines = (parts * num_rows + row).to(tl.int64) * HEADS + head
            highs = tl.load(ends + lines * 2, mask=is_part, other=float("-inf"))
            totals = tl.load(ends + lines * 2 + 1, mask=is_part, other=0.0)
            new = tl.load(
                sums + lines[:, None] * HEAD + elements[None, :],
                mask=is_part[:, None] & is_element[None, :],
                other=0.0,
            )
            high = tl.maximum(largest, tl.max(highs))
            factors = tl.exp(highs - high)
            factor = tl.exp(largest - high)
            total = total * factor + tl.sum(totals * factors)
            summed = summed * factor + tl.sum(new * factors[:, None], axis=0)
            largest = high
        # Not at the start: the product behind would take its room from the products in front.
        release(IS_CHAINED)
        tl.store(to + elements, (summed / total).to(attended.dtype.element_ty), mask=is_element)
    else:
        zeros = tl.zeros((PADDED,), dtype=tl.float32)
        tl.store(to + elements, zeros.to(attended.dtype.element_ty), mask=is_element)


def attend(
    projected: Float[Tensor, "rows heads_and_twice_kv_heads head"],
    attended: Float[Tensor, "rows heads head"],
    pages: Pages,
    places: Places,
    heads: Heads,
    parts: Parts,
    num_parts: int,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
) -> None:
    """Turn queries and keys, keep keys and values, and look back over each row's own prefix.

    Args:
        projected: Queries, keys and values of each row.
        attended: What is written; zeros for padding.
        pages: Of this layer; the new keys and values are put there.
        places: Whose rows they are.
        heads: How queries and keys are turned.
        parts: Room for at least `num_parts` parts of these rows.
        num_parts: Pages that the longest sequence holds with this pass, or more.
        scale: Multiplies query times key.
        window: A row sees so many keys, itself included; None is all.
        cap: Scores become `cap * tanh(score / cap)`.
    """
    rows, num_heads, head = attended.shape
    kv_heads = (projected.shape[1] - num_heads) // 2
    group, batch = num_heads // kv_heads, len(places.starts)
    is_chained = CHAINED and projected.is_cuda
    assert parts.sums.numel() >= num_parts * rows * num_heads * head
    assert num_parts <= places.tables.shape[1]
    _attend_part[(num_parts, batch * kv_heads, triton.cdiv(places.width * group, _LINES))](
        projected,
        pages.keys,
        pages.values,
        places.tables,
        places.starts,
        places.widths,
        heads.cosines,
        heads.sines,
        projected if heads.query_norm is None else heads.query_norm,
        projected if heads.key_norm is None else heads.key_norm,
        parts.sums,
        parts.ends,
        places.tables.shape[1],
        places.width,
        rows,
        scale,
        1.0 if cap is None else cap,
        heads.epsilon,
        HEADS=num_heads,
        KV_HEADS=kv_heads,
        HEAD=head,
        HALF=max(16, triton.next_power_of_2(head // 2)),
        PAGE_SIZE=pages.keys.shape[2],
        LINES=_LINES,
        WINDOW=window or 0,
        HAS_CAP=cap is not None,
        HAS_NORM=heads.query_norm is not None,
        IS_CHAINED=is_chained,
        **launch_options(4, is_chained=is_chained),
    )
    _join_parts[(rows, num_heads)](
        parts.sums,
        parts.ends,
        places.starts,
        places.widths,
        attended,
        places.width,
        rows,
        HEADS=num_heads,
        HEAD=head,
        PADDED=max(16, triton.next_power_of_2(head)),
        PAGE_SIZE=pages.keys.shape[2],
        AT_ONCE=_PARTS_AT_ONCE,
        WINDOW=window or 0,
        IS_CHAINED=is_chained,
        **launch_options(2, is_chained=is_chained),
    )
