"""Sums and gatherings over the ranks of a group, out of memory that each can read of the others.

A program waits until every rank has written what it is about to read, and reads it: no rank copies
for another, and no kernel of a library stands between. Sums run rank by rank, so that a row's bits
depend neither on the rows beside it nor on who was first. A rank that is gone would be waited for
for ever: the host can call the wait off.
"""

from typing import NamedTuple, no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.products import Stream

__all__ = ["MOST_PLACES", "TILE", "Peers", "add_up", "embed_part", "gather", "meet"]

TILE = 256
"""Columns of one program of a sum: of a stream's squares, too."""
_GATHERED = 1024
MOST_PLACES = 32_768
"""Programs of one exchange."""
_PATIENCE = tl.constexpr(1024)
"""Looks at a flag between two looks at whether to go on at all."""


class Peers(NamedTuple):
    """What a kernel knows of the ranks. Pointers are int64: the same memory, as this rank sees it.

    A rank's memory is two halves of floats, which exchanges use in turn, so that what one reads is
    not written over before all have met again.
    """

    floats: Int[Tensor, " ranks"]
    """Pointers to each rank's floats."""
    flags: Int[Tensor, " ranks"]
    """Pointers to each rank's flags, int32: one of every place for every rank, rank by rank."""
    meetings: Int[Tensor, " places"]
    """How often each place has met; int32, of this rank."""
    is_off: Int[Tensor, " 1"]
    """Not 0 once nobody shall wait any more; pinned memory of the host."""
    rank: int
    size: int


@no_type_check
@triton.jit
def _meet(flags, meetings, is_off, place, RANK: tl.constexpr, RANKS: tl.constexpr,
          PLACES: tl.constexpr):  # fmt: skip
    """Wait until this place's programs of all ranks are here."""
    count = tl.load(meetings + place) + 1
    for other in tl.static_range(RANKS):
        if other != RANK:
            theirs = tl.load(flags + other).to(tl.pointer_type(tl.int32))
            tl.atomic_xchg(theirs + RANK * PLACES + place, count, sem="release", scope="sys")
    own = tl.load(flags + RANK).to(tl.pointer_type(tl.int32))
    for other in tl.static_range(RANKS):
        if other != RANK:
            seen = tl.atomic_add(own + other * PLACES + place, 0, sem="acquire", scope="sys")
            looks, off = 0, 0
            # Counts go round; the difference does not.
            while (seen - count < 0) & (off == 0):
                seen = tl.atomic_add(own + other * PLACES + place, 0, sem="acquire", scope="sys")
                looks += 1
                if looks % _PATIENCE == 0:
                    off = tl.load(is_off, volatile=True)
    tl.store(meetings + place, count)


@no_type_check
@triton.jit
def _only_meet(flags, meetings, is_off, RANK: tl.constexpr, RANKS: tl.constexpr,
               PLACES: tl.constexpr, IS_CHAINED: tl.constexpr) -> None:  # fmt: skip
    release(IS_CHAINED)
    wait(IS_CHAINED)
    _meet(flags, meetings, is_off, 0, RANK, RANKS, PLACES)


@no_type_check
@triton.jit
def _add_up(
    floats,
    flags,
    meetings,
    is_off,
    half,
    bias,
    residual,
    norm,
    values,
    weighted,
    squares,
    num_columns,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    row, tile = tl.program_id(0), tl.program_id(1)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < num_columns
    place = row * tl.num_programs(1) + tile
    to = row.to(tl.int64) * num_columns + columns
    # What no kernel writes is asked for before the wait.
    factors = tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias_1 = tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)
    wait(IS_CHAINED)
    if HAS_RESIDUAL:
        before = tl.load(residual + to, mask=is_column, other=0.0).to(tl.float32)
    _meet(flags, meetings, is_off, place, RANK, RANKS, PLACES)
    summed = tl.zeros((COLUMNS,), dtype=tl.float32)
    for other in tl.static_range(RANKS):
        theirs = tl.load(floats + other).to(tl.pointer_type(tl.float32)) + half
        # Never from a cache that another rank's writes do not reach.
        summed += tl.load(theirs + to, mask=is_column, other=0.0, volatile=True)
    if HAS_BIAS:
        summed += bias_1
    if HAS_RESIDUAL:
        summed += before
    rounded = summed.to(values.dtype.element_ty)
    wide = rounded.to(tl.float32)
    tl.store(values + to, rounded, mask=is_column)
    tl.store(weighted + to, (wide * factors).to(rounded.dtype), mask=is_column)
    tl.store(squares + row * tl.num_programs(1) + tile, tl.sum(tl.where(is_column, wide * wide, 0)))


@no_type_check
@triton.jit
def _gather(
    floats,
    flags,
    meetings,
    is_off,
    half,
    out,
    num_own,
    num_columns,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    own = tile * COLUMNS + tl.arange(0, COLUMNS)
    _meet(flags, meetings, is_off, row * tl.num_programs(1) + tile, RANK, RANKS, PLACES)
    for other in tl.static_range(RANKS):
        theirs = tl.load(floats + other).to(tl.pointer_type(tl.float32)) + half
        columns = other * num_own + own
        is_column = (own < num_own) & (columns < num_columns)
        part = tl.load(theirs + row * num_own + own, mask=is_column, volatile=True)
        tl.store(out + row * num_columns + columns, part, mask=is_column)


@no_type_check
@triton.jit
def _embed_part(
    tokens,
    embedding,
    out,
    first,
    num_ids,
    HIDDEN: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, tile = tl.program_id(0), tl.program_id(1)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.load(tokens + row).to(tl.int64) - first
    is_own = (columns < HIDDEN) & (token >= 0) & (token < num_ids)
    found = tl.load(embedding + token * HIDDEN + columns, mask=is_own, other=0.0)
    tl.store(out + row.to(tl.int64) * HIDDEN + columns, found.to(tl.float32), mask=columns < HIDDEN)


def meet(peers: Peers) -> None:
    """Wait for all ranks.

    Args:
        peers: Who they are.
    """
    _only_meet[(1,)](
        peers.flags,
        peers.meetings,
        peers.is_off,
        RANK=peers.rank,
        RANKS=peers.size,
        PLACES=MOST_PLACES,
        IS_CHAINED=CHAINED,
        **launch_options(1, is_chained=CHAINED),
    )


def add_up(
    peers: Peers,
    half: int,
    *,
    norm: Float[Tensor, " columns"],
    to: Stream,
    bias: Float[Tensor, " columns"] | None = None,
    residual: Float[Tensor, "rows columns"] | None = None,
) -> None:
    """`to = residual + (sum over the ranks) + bias`, and what the norm after it needs.

    Args:
        peers: Whose floats are `[rows, columns]`.
        half: Where they begin.
        norm: The weight of the norm after this sum.
        to: What is written; its squares are of `TILE` neighbours each.
        bias: Added to the sum.
        residual: Added at the end; may be `to.values`.
    """
    rows, columns = to.values.shape
    tiles = triton.cdiv(columns, TILE)
    assert rows * tiles <= MOST_PLACES
    assert to.squares.shape == (rows, tiles)
    _add_up[(rows, tiles)](
        peers.floats,
        peers.flags,
        peers.meetings,
        peers.is_off,
        half,
        norm if bias is None else bias,
        norm if residual is None else residual,
        norm,
        to.values,
        to.weighted,
        to.squares,
        columns,
        RANK=peers.rank,
        RANKS=peers.size,
        PLACES=MOST_PLACES,
        COLUMNS=TILE,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        IS_CHAINED=CHAINED and to.values.is_cuda,
        **launch_options(2, is_chained=CHAINED and to.values.is_cuda),
    )


def gather(peers: Peers, half: int, num_own: int, out: Float[Tensor, "rows columns"]) -> None:
    """Every rank's columns side by side, as many as `out` has.

    Args:
        peers: Whose floats are `[rows, num_own]`.
        half: Where they begin.
        num_own: Columns of one rank.
        out: What is written.
    """
    rows, columns = out.shape
    tiles = triton.cdiv(num_own, _GATHERED)
    assert rows * tiles <= MOST_PLACES
    _gather[(rows, tiles)](
        peers.floats,
        peers.flags,
        peers.meetings,
        peers.is_off,
        half,
        out,
        num_own,
        columns,
        RANK=peers.rank,
        RANKS=peers.size,
        PLACES=MOST_PLACES,
        COLUMNS=_GATHERED,
        IS_CHAINED=CHAINED and out.is_cuda,
        **launch_options(4, is_chained=CHAINED and out.is_cuda),
    )


def embed_part(
    tokens: Int[Tensor, " rows"],
    embedding: Float[Tensor, "ids hidden"],
    first: int,
    out: Float[Tensor, "rows hidden"],
) -> None:
    """The embeddings of those tokens that this rank has, and zeros for the others.

    Args:
        tokens: Ids.
        embedding: Rows of this rank.
        first: The id of its first row.
        out: What is written, float32.
    """
    num_ids, hidden = embedding.shape
    is_chained = CHAINED and tokens.is_cuda
    _embed_part[(len(tokens), triton.cdiv(hidden, TILE))](
        tokens,
        embedding,
        out,
        first,
        num_ids,
        HIDDEN=hidden,
        COLUMNS=TILE,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )
