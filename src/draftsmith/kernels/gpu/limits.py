"""Where top-k and top-p cut a row of scores: the last pair (distance from the best, id) that stays.

Distances are compared by the bits of float32, which for numbers that are not negative rise with
them. Sums are of whole numbers, which know no order.
"""

from typing import no_type_check

import triton
import triton.language as tl

__all__ = ["EVERY", "ONE", "best_of", "crossing", "distance", "near_limit", "row_limit", "whole"]

ONE = tl.constexpr(2.0**44)
"""What stands for the best token's weight in whole numbers: 2 ** 19 tokens fit."""
EVERY = tl.constexpr(2**31 - 1)
"""A limit that keeps every score, or every id."""
_INFINITE = tl.constexpr(0x7F800000)
"""Infinity's bits, the largest distance from the best."""


@no_type_check
@triton.jit
def best_of(highs, ids, row, PARTS: tl.constexpr, PADDED: tl.constexpr) -> tuple[tl.tensor, ...]:
    """The largest logit of a row, the lowest id that has it, and whether the row is a law."""
    parts = tl.arange(0, PADDED)
    is_part = parts < PARTS
    high = tl.load(highs + row * PARTS + parts, mask=is_part, other=float("-inf"))
    first = tl.load(ids + row * PARTS + parts, mask=is_part, other=2147483647)
    is_nan = high != high
    best = tl.max(tl.where(is_nan, float("-inf"), high), axis=0)
    token = tl.min(tl.where(high == best, first, 2147483647), axis=0)
    is_law = (tl.abs(best) < float("inf")) & (tl.sum(is_nan.to(tl.int32), axis=0) == 0)
    return best, token, is_law


@no_type_check
@triton.jit
def distance(values, best, temperature) -> tl.tensor:
    """How far scores lie below the best, after the temperature; not negative."""
    return tl.abs((values - best) / temperature)


@no_type_check
@triton.jit
def whole(weights) -> tl.tensor:
    """Weights as whole numbers."""
    return (weights.to(tl.float64) * ONE).to(tl.int64)


@no_type_check
@triton.jit
def _up_to(
    line,
    best,
    temperature,
    vocab_size,
    key,
    token,
    limit_key,
    limit_token,
    least,
    IDS: tl.constexpr,
):
    """Number and whole weight of the pairs up to one pair and up to a limit."""
    number, total = tl.zeros((), tl.int64), tl.zeros((), tl.int64)
    for begin in range(0, vocab_size, IDS):
        columns = begin + tl.arange(0, IDS)
        is_column = columns < vocab_size
        values = tl.load(line + columns, mask=is_column, other=float("-inf"))
        distances = distance(values, best, temperature)
        keys, weights = distances.to(tl.int32, bitcast=True), tl.exp(-distances)
        is_in = (keys < key) | ((keys == key) & (columns <= token))
        is_in &= (keys < limit_key) | ((keys == limit_key) & (columns <= limit_token))
        is_in &= is_column & (weights >= least)
        number += tl.sum(is_in.to(tl.int64), axis=0)
        total += tl.sum(tl.where(is_in, whole(weights), 0), axis=0)
    return number, total


@no_type_check
@triton.jit
def _search(
    line,
    best,
    temperature,
    vocab_size,
    wanted,
    limit_key,
    limit_token,
    IS_NUMBER: tl.constexpr,
    IDS: tl.constexpr,
):
    """The first pair up to which there is as much as is wanted, by number or by weight."""
    low, high = tl.zeros((), tl.int32), tl.zeros((), tl.int32) + _INFINITE
    while low < high:
        key = low + (high - low) // 2
        number, total = _up_to(
            line, best, temperature, vocab_size, key, EVERY, limit_key, limit_token, 0.0, IDS
        )
        amount = number.to(tl.float64) if IS_NUMBER else total.to(tl.float64)
        is_enough = amount >= wanted
        low, high = tl.where(is_enough, low, key + 1), tl.where(is_enough, key, high)
    found = low
    number, _ = _up_to(
        line, best, temperature, vocab_size, found, EVERY, limit_key, limit_token, 0.0, IDS
    )
    before, _ = _up_to(
        line, best, temperature, vocab_size, found - 1, EVERY, limit_key, limit_token, 0.0, IDS
    )
    low, high = tl.zeros((), tl.int32), tl.zeros((), tl.int32) + vocab_size - 1
    # Where only one token has this score, no lower id will do.
    low = tl.where(number - before > 1, low, high)
    while low < high:
        token = low + (high - low) // 2
        number, total = _up_to(
            line, best, temperature, vocab_size, found, token, limit_key, limit_token, 0.0, IDS
        )
        amount = number.to(tl.float64) if IS_NUMBER else total.to(tl.float64)
        is_enough = amount >= wanted
        low, high = tl.where(is_enough, low, token + 1), tl.where(is_enough, token, high)
    return found, low


@no_type_check
@triton.jit
def row_limit(
    line, best, temperature, vocab_size, top_k, top_p, has_k, has_p, min_p, IDS: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """The last pair that is kept, and the whole weight of what is, from all of a row."""
    limit_key, limit_token = tl.zeros((), tl.int32) + EVERY, tl.zeros((), tl.int32) + EVERY
    if has_k:
        wanted = top_k.to(tl.float64)
        limit_key, limit_token = _search(
            line, best, temperature, vocab_size, wanted, limit_key, limit_token, True, IDS
        )
    if has_p:
        _, total = _up_to(
            line, best, temperature, vocab_size, EVERY, EVERY, limit_key, limit_token, 0.0, IDS
        )
        wanted = top_p * total.to(tl.float64)
        limit_key, limit_token = _search(
            line, best, temperature, vocab_size, wanted, limit_key, limit_token, False, IDS
        )
    _, kept = _up_to(
        line, best, temperature, vocab_size, EVERY, EVERY, limit_key, limit_token, min_p, IDS
    )
    return limit_key, limit_token, kept


@no_type_check
@triton.jit
def crossing(
    tallies,
    masses,
    total,
    top_k,
    top_p,
    has_k,
    BINS: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """The bins among whose tokens the limit lies, and the whole weight of those before them.

    All of the first `top_k` where there is a top-k, since the nucleus may end anywhere in them;
    else the bin in which the nucleus ends. Without such a bin the second is `BINS`.
    """
    bins = tl.arange(0, BINS)
    weights = tl.load(masses + bins)
    if has_k:
        is_reached = tl.cumsum(tl.load(tallies + bins), axis=0) >= top_k
    else:
        is_reached = tl.cumsum(weights, axis=0).to(tl.float64) >= top_p * total.to(tl.float64)
    last = tl.min(tl.where(is_reached, bins, BINS), axis=0)
    first = last
    if has_k:
        first = last * 0
    return first, last, tl.sum(tl.where(bins < first, weights, 0), axis=0)


@no_type_check
@triton.jit
def near_limit(
    near,
    number,
    first,
    base,
    total,
    top_k,
    top_p,
    has_k,
    has_p,
    min_p,
    NEAR: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """The same from the tokens of some bins, and whether it can be told from them."""
    places = tl.arange(0, NEAR)
    is_near = places < number
    pairs = tl.sort(tl.load(near + places, mask=is_near, other=9223372036854775807))
    keys = tl.where(is_near, pairs >> 32, 0).to(tl.int32)
    weights = tl.exp(-keys.to(tl.float32, bitcast=True))
    wholes = tl.where(is_near, whole(weights), 0)
    is_known = (number <= NEAR) & (number > 0)
    last = tl.zeros((), tl.int32) + EVERY
    if has_k:
        last = top_k - 1
        total = tl.sum(tl.where(places <= last, wholes, 0), axis=0)
    if has_p:
        sums = base + tl.cumsum(wholes, axis=0)
        is_enough = (sums.to(tl.float64) >= top_p * total.to(tl.float64)) & is_near
        last = tl.minimum(last, tl.min(tl.where(is_enough, places, EVERY), axis=0))
    # Bins before these are kept whole, if min-p lets the best of these stay.
    nearest = tl.max(tl.where(is_near, weights, 0.0), axis=0)
    is_known &= (last < EVERY) & ((first == 0) | (min_p <= nearest))
    pair = tl.sum(tl.where(places == last, pairs, 0), axis=0)
    is_kept = (places <= last) & (weights >= min_p)
    kept = base + tl.sum(tl.where(is_kept, wholes, 0), axis=0)
    return (pair >> 32).to(tl.int32), pair.to(tl.int32), kept, is_known
