"""Sums and gatherings over the ranks of a group.

What a rank sends, it writes into the others' memory as soon as it has it (`products.product`,
`embed_part`). The kernels here wait until everybody has sent, and read what came. Sums run rank by
rank, so that a row's bits depend neither on the rows beside it nor on who was first.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.peers import MOST_PLACES, Inbox, meet_at
from draftsmith.kernels.gpu.products import Stream

__all__ = ["TILE", "add_up", "embed_part", "gather"]

TILE = 256
"""Columns of one program of a sum, and neighbours whose squares are summed together."""
_GATHERED = 1024
_ROWS = 8
"""Of one program, however many there are: squares are summed in an order of this shape's."""


@no_type_check
@triton.jit(do_not_specialize=["num_rows"])
def _add_up(
    parts,
    flags,
    meetings,
    is_off,
    off_here,
    bias,
    residual,
    norm,
    values,
    weighted,
    squares,
    num_rows,
    num_columns,
    part_floats,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    PLACES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    tile, rows_tile = tl.program_id(0), tl.program_id(1)
    rows = rows_tile * ROWS + tl.arange(0, ROWS)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < num_columns
    is_there = (rows < num_rows)[:, None] & is_column[None, :]
    to = rows.to(tl.int64)[:, None] * num_columns + columns[None, :]
    # What no kernel writes is asked for before the wait.
    factors = tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias_1 = tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)
    wait(IS_CHAINED)
    if HAS_RESIDUAL:
        before = tl.load(residual + to, mask=is_there, other=0.0).to(tl.float32)
    place = rows_tile * tl.num_programs(0) + tile
    meet_at(place, flags, meetings, is_off, off_here, RANK, RANKS, PLACES)
    summed = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for other in tl.static_range(RANKS):
        # Never from a cache that the others' writes do not reach.
        sent = parts + tl.cast(part_floats, tl.int64) * other
        summed += tl.load(sent + to, mask=is_there, other=0.0, volatile=True)
    if HAS_BIAS:
        summed += bias_1[None, :]
    if HAS_RESIDUAL:
        summed += before
    rounded = summed.to(values.dtype.element_ty)
    wide = rounded.to(tl.float32)
    tl.store(values + to, rounded, mask=is_there)
    tl.store(weighted + to, (wide * factors[None, :]).to(rounded.dtype), mask=is_there)
    summed = tl.sum(tl.where(is_there, wide * wide, 0.0), axis=1)
    tl.store(squares + rows * tl.num_programs(0) + tile, summed, mask=rows < num_rows)


@no_type_check
@triton.jit(do_not_specialize=["num_rows"])
def _gather_parts(
    parts,
    flags,
    meetings,
    is_off,
    off_here,
    out,
    num_rows,
    num_own,
    num_columns,
    part_floats,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    tile = tl.program_id(0)
    own = tile * COLUMNS + tl.arange(0, COLUMNS)
    meet_at(tile, flags, meetings, is_off, off_here, RANK, RANKS, PLACES)
    for row in range(num_rows):
        for other in tl.static_range(RANKS):
            sent = parts + tl.cast(part_floats, tl.int64) * other + row * num_own
            columns = other * num_own + own
            is_column = (own < num_own) & (columns < num_columns)
            part = tl.load(sent + own, mask=is_column, volatile=True)
            tl.store(out + tl.cast(row, tl.int64) * num_columns + columns, part, mask=is_column)


@no_type_check
@triton.jit
def _embed_part(
    tokens,
    embedding,
    floats,
    first,
    num_ids,
    offset,
    RANKS: tl.constexpr,
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
    found = tl.load(embedding + token * HIDDEN + columns, mask=is_own, other=0.0).to(tl.float32)
    to = row.to(tl.int64) * HIDDEN + columns + offset
    for other in tl.static_range(RANKS):
        theirs = tl.load(floats + other).to(tl.pointer_type(tl.float32))
        tl.store(theirs + to, found, mask=columns < HIDDEN)


def add_up(
    inbox: Inbox,
    *,
    norm: Float[Tensor, " columns"],
    to: Stream,
    bias: Float[Tensor, " columns"] | None = None,
    residual: Float[Tensor, "rows columns"] | None = None,
) -> None:
    """`to = residual + (sum over the ranks) + bias`, and what the norm after it needs.

    Args:
        inbox: To which every rank sends `[rows, columns]`.
        norm: The weight of the norm after this sum.
        to: What is written; its squares are of `TILE` neighbours each.
        bias: Added to the sum.
        residual: Added at the end; may be `to.values`.
    """
    rows, columns = to.values.shape
    tiles = triton.cdiv(columns, TILE)
    row_tiles = triton.cdiv(rows, _ROWS)
    assert row_tiles * tiles <= MOST_PLACES
    assert to.squares.shape == (rows, tiles)
    peers = inbox.peers
    _add_up[(tiles, row_tiles)](
        inbox.parts,
        peers.flags,
        peers.meetings,
        peers.is_off,
        peers.off_here,
        norm if bias is None else bias,
        norm if residual is None else residual,
        norm,
        to.values,
        to.weighted,
        to.squares,
        rows,
        columns,
        inbox.parts.shape[1],
        RANK=peers.rank,
        RANKS=peers.size,
        PLACES=MOST_PLACES,
        ROWS=_ROWS,
        COLUMNS=TILE,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        IS_CHAINED=CHAINED and to.values.is_cuda,
        **launch_options(4, is_chained=CHAINED and to.values.is_cuda),
    )


def gather(inbox: Inbox, num_own: int, out: Float[Tensor, "rows columns"]) -> None:
    """Every rank's columns side by side, as many as `out` has.

    Args:
        inbox: To which every rank sends `[rows, num_own]`.
        num_own: Columns of one rank.
        out: What is written.
    """
    rows, columns = out.shape
    tiles = triton.cdiv(num_own, _GATHERED)
    assert tiles <= MOST_PLACES
    peers = inbox.peers
    _gather_parts[(tiles,)](
        inbox.parts,
        peers.flags,
        peers.meetings,
        peers.is_off,
        peers.off_here,
        out,
        rows,
        num_own,
        columns,
        inbox.parts.shape[1],
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
    to: Float[Tensor, "rows hidden"] | Inbox,
) -> None:
    """Send the embeddings of those tokens that this rank has, and zeros for the others.

    Args:
        tokens: Ids.
        embedding: Rows of this rank.
        first: The id of its first row.
        to: Where they go.
    """
    assert isinstance(to, Inbox)
    num_ids, hidden = embedding.shape
    is_chained = CHAINED and tokens.is_cuda
    _embed_part[(len(tokens), triton.cdiv(hidden, TILE))](
        tokens,
        embedding,
        to.peers.floats,
        first,
        num_ids,
        to.offset,
        RANKS=to.peers.size,
        HIDDEN=hidden,
        COLUMNS=TILE,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )
