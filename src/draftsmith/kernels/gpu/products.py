"""Products of a few rows with a weight matrix: one read of the weights, a fixed order of sums.

A program computes some outputs for a tile of rows, over its share of the inputs. How inputs are cut
into steps and shares depends on the matrix alone, so that a row's sums have the same bits whatever
stands beside it. What comes before and after a product is part of its kernel, because at a few rows
launches and not arithmetic take the time: the gate, a bias, the residual, and both halves of an
RMSNorm. The product that makes a residual stream also multiplies it by the next norm's weight and
sums its squares, tile by tile; the products that read it divide by the root at their end.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.peers import Inbox

__all__ = ["Plan", "Scratch", "Stream", "embed", "plan_for", "product"]


class Plan(NamedTuple):
    """How a matrix is cut up: a function of its shape, never of the rows beside it."""

    outputs: int
    """Of one program."""
    inputs: int
    """Of one step of its loop."""
    shares: int
    """Programs that share the inputs of one tile of outputs."""
    warps: int
    stages: int


class Stream(NamedTuple):
    """A residual stream, and what the norm after it needs."""

    values: Float[Tensor, "rows hidden"]
    weighted: Float[Tensor, "rows hidden"]
    """The values times the norm's weight, not yet divided by the root of their mean square."""
    squares: Float[Tensor, "rows tiles"]
    """Sums of squares of neighbouring values, float32."""


def plan_for(num_outputs: int, num_inputs: int, *, is_gated: bool) -> Plan:
    """The plan of a matrix `[num_outputs, num_inputs]`; a gate and its twin count once."""
    step = 128 if num_inputs % 128 == 0 else 64
    if is_gated:
        return Plan(64 if num_outputs >= 12_000 else 32, step, 1, 4, 3)
    if num_outputs >= 32_768:
        return Plan(128, step, 1, 4, 3)
    if num_outputs > 4096:
        return Plan(32, step, 1, 4, 5)
    outputs = 32 if num_outputs > 2048 else 16
    programs = -(-num_outputs // outputs)
    shares = 1
    while shares < 4 and num_inputs >= 4096 * shares and programs * shares < 384:
        shares *= 2
    return Plan(outputs, step, shares, 4, 5)


class Scratch:
    """What programs that share a tile leave for the last of them: sums, and how many are done.

    Args:
        device: Where.
        num_floats: Room for the sums of one product.
        num_tiles: Room for the counts.
    """

    def __init__(self, device: torch.device, num_floats: int, num_tiles: int) -> None:
        self.sums = torch.empty(num_floats, dtype=torch.float32, device=device)
        self.done = torch.zeros(num_tiles, dtype=torch.int32, device=device)


@no_type_check
@triton.jit
def _activated(gate, IS_SILU: tl.constexpr):
    if IS_SILU:
        return gate / (1.0 + tl.exp(-gate))
    inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
    # tanh by exp, which cannot overflow to NaN in this form.
    return gate * (1.0 - 1.0 / (tl.exp(2.0 * inner) + 1.0))


@no_type_check
@triton.jit(do_not_specialize=["num_rows"])
def _product(
    x,
    squares_in,
    weight,
    bias,
    residual,
    norm,
    out,
    weighted,
    squares_out,
    sums,
    done,
    floats,
    offset,
    num_rows,
    num_outputs,
    epsilon,
    scale,
    num_inputs: tl.constexpr,
    RANKS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    SHARES: tl.constexpr,
    TILES_IN: tl.constexpr,
    PADDED_TILES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_NORM: tl.constexpr,
    IS_GATED: tl.constexpr,
    IS_SILU: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    STAGES: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    rows_tile, tile, share = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = rows_tile * ROWS + tl.arange(0, ROWS)
    outputs = tile * OUTPUTS + tl.arange(0, OUTPUTS)
    is_row, is_output = rows < num_rows, outputs < num_outputs
    steps: tl.constexpr = (num_inputs + INPUTS - 1) // INPUTS
    per_share: tl.constexpr = (steps + SHARES - 1) // SHARES
    first = share * per_share
    last = tl.minimum(first + per_share, steps)
    lines = weight + outputs[:, None].to(tl.int64) * num_inputs
    twin_lines = lines + num_outputs.to(tl.int64) * num_inputs
    wait(IS_CHAINED)
    # What is wanted after the loop is asked for before it.
    of_out = is_output[None, :] & is_row[:, None]
    to = rows[:, None].to(tl.int64) * num_outputs + outputs[None, :]
    if TILES_IN > 0:
        tiles = tl.arange(0, PADDED_TILES)
        squares = tl.load(
            squares_in + rows[:, None] * TILES_IN + tiles[None, :],
            mask=is_row[:, None] & (tiles < TILES_IN)[None, :],
            other=0.0,
        )
    if HAS_BIAS:
        bias_1 = tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)
        if IS_GATED:
            bias_2 = tl.load(bias + num_outputs + outputs, mask=is_output, other=0.0)
    if HAS_RESIDUAL:
        before = tl.load(residual + to, mask=of_out, other=0.0).to(tl.float32)
    if HAS_NORM:
        factors = tl.load(norm + outputs, mask=is_output, other=0.0).to(tl.float32)
    sum_1 = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    sum_2 = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    x_lines = x + rows[:, None] * num_inputs
    for step in tl.range(first, last, num_stages=STAGES):
        inputs = step * INPUTS + tl.arange(0, INPUTS)
        if IS_WHOLE:
            of_w, of_x = is_output[:, None], is_row[:, None]
        else:
            is_input = (inputs < num_inputs)[None, :]
            of_w, of_x = is_output[:, None] & is_input, is_row[:, None] & is_input
        w_1 = tl.load(lines + inputs[None, :], mask=of_w, other=0.0)
        values = tl.load(x_lines + inputs[None, :], mask=of_x, other=0.0)
        sum_1 = tl.dot(values, tl.trans(w_1), sum_1, input_precision="ieee")
        if IS_GATED:
            w_2 = tl.load(twin_lines + inputs[None, :], mask=of_w, other=0.0)
            sum_2 = tl.dot(values, tl.trans(w_2), sum_2, input_precision="ieee")
    # Not before the loop: the next kernel's programs would take the room of this one's.
    release(IS_CHAINED)
    is_last = True
    if SHARES > 1:
        places = rows[:, None] * num_outputs + outputs[None, :]
        size = tl.num_programs(0) * ROWS * num_outputs
        tl.store(sums + share * size + places, sum_1, mask=of_out)
        tl.debug_barrier()
        count = done + rows_tile * tl.num_programs(1) + tile
        is_last = tl.atomic_add(count, 1, sem="acq_rel") == SHARES - 1
        if is_last:
            # One order, whoever was last.
            sum_1 = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
            for other in tl.static_range(SHARES):
                sum_1 += tl.load(
                    sums + other * size + places, mask=of_out, other=0.0, volatile=True
                )
            tl.store(count, 0)
    if is_last:
        if TILES_IN > 0:
            roots = tl.rsqrt(tl.sum(squares, axis=1) / num_inputs + epsilon)[:, None]
            sum_1 = sum_1 * roots
            sum_2 = sum_2 * roots
        if HAS_BIAS:
            sum_1 += bias_1[None, :]
            if IS_GATED:
                sum_2 += bias_2.to(tl.float32)[None, :]
        if IS_GATED:
            sum_1 = _activated(sum_1, IS_SILU) * sum_2
        sum_1 = sum_1 * scale
        if HAS_RESIDUAL:
            sum_1 += before
        if RANKS > 0:
            for other in tl.static_range(RANKS):
                theirs = tl.load(floats + other).to(tl.pointer_type(tl.float32)) + offset
                tl.store(theirs + to, sum_1, mask=of_out)
        else:
            rounded = sum_1.to(out.dtype.element_ty)
            tl.store(out + to, rounded, mask=of_out)
        if HAS_NORM:
            wide = rounded.to(tl.float32)
            tl.store(weighted + to, (wide * factors[None, :]).to(rounded.dtype), mask=of_out)
            summed = tl.sum(tl.where(of_out, wide * wide, 0.0), axis=1)
            tl.store(squares_out + rows * tl.num_programs(1) + tile, summed, mask=is_row)


def product(
    x: Float[Tensor, "rows inputs"],
    weight: Float[Tensor, "weight_rows inputs"],
    out: Float[Tensor, "rows outputs"] | Inbox,
    plan: Plan,
    *,
    squares: Float[Tensor, "rows tiles"] | None = None,
    epsilon: float = 0.0,
    bias: Float[Tensor, " weight_rows"] | None = None,
    residual: Float[Tensor, "rows outputs"] | None = None,
    gate: str | None = None,
    scale: float = 1.0,
    norm: Float[Tensor, " outputs"] | None = None,
    to: Stream | None = None,
    scratch: Scratch | None = None,
    tile_rows: int = 16,
) -> None:
    """`out = residual + scale * act(x W^T / root + bias)`, each part where it is asked for.

    Args:
        x: Contiguous; a stream's `weighted` where `squares` are given.
        weight: Contiguous; with a gate, the gate's outputs and after them those that it gates.
        out: What is written; may be `residual`. Or where it is sent, float32, without a norm.
        plan: How the matrix is cut up.
        squares: Of the stream that x comes from.
        epsilon: Of its norm.
        bias: Added to the product.
        residual: Added at the end.
        gate: `silu` or `gelu`.
        scale: Multiplies the result before the residual is added.
        norm: The weight of the norm after this product.
        to: The stream whose `values` are `out`; with `norm`.
        scratch: Where the plan has shares.
        tile_rows: Rows of one program.
    """
    rows, inputs = x.shape
    outputs = weight.shape[0] // (2 if gate else 1)
    tiles = triton.cdiv(outputs, plan.outputs)
    tile_rows = min(tile_rows, max(16, 1 << (rows - 1).bit_length()))
    row_tiles = triton.cdiv(rows, tile_rows)
    if plan.shares > 1:
        assert scratch is not None
        assert plan.shares * row_tiles * tile_rows * outputs <= scratch.sums.numel()
        assert tiles * row_tiles <= scratch.done.numel()
    tiles_in = 0 if squares is None else squares.shape[1]
    assert to is None or to.squares.shape == (rows, tiles)
    is_chained = CHAINED and x.is_cuda
    is_sent = isinstance(out, Inbox)
    assert not (is_sent and (to is not None or residual is not None))
    _product[(row_tiles, tiles, plan.shares)](
        x,
        x if squares is None else squares,
        weight,
        x if bias is None else bias,
        x if residual is None else residual,
        x if norm is None else norm,
        x if is_sent else out,
        x if to is None else to.weighted,
        x if to is None else to.squares,
        x if scratch is None else scratch.sums,
        x if scratch is None else scratch.done,
        out.peers.floats if is_sent else x,
        out.offset if is_sent else 0,
        rows,
        outputs,
        epsilon,
        scale,
        inputs,
        RANKS=out.peers.size if is_sent else 0,
        ROWS=tile_rows,
        OUTPUTS=plan.outputs,
        INPUTS=plan.inputs,
        SHARES=plan.shares,
        TILES_IN=tiles_in,
        PADDED_TILES=triton.next_power_of_2(max(1, tiles_in)),
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        HAS_NORM=to is not None,
        IS_GATED=gate is not None,
        IS_SILU=gate != "gelu",
        IS_WHOLE=inputs % plan.inputs == 0,
        STAGES=plan.stages,
        IS_CHAINED=is_chained,
        **launch_options(plan.warps, is_chained=is_chained),
    )


@no_type_check
@triton.jit
def _embed(
    tokens,
    embedding,
    norm,
    values,
    weighted,
    squares,
    scale,
    HIDDEN: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TILES: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    row, tile = tl.program_id(0), tl.program_id(1)
    columns = tile * OUTPUTS + tl.arange(0, OUTPUTS)
    is_column = columns < HIDDEN
    token = tl.load(tokens + row).to(tl.int64)
    wide = tl.load(embedding + token * HIDDEN + columns, mask=is_column, other=0.0).to(tl.float32)
    rounded = (wide * scale).to(values.dtype.element_ty)
    wide = rounded.to(tl.float32)
    to = row.to(tl.int64) * HIDDEN + columns
    tl.store(values + to, rounded, mask=is_column)
    factors = tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
    tl.store(weighted + to, (wide * factors).to(rounded.dtype), mask=is_column)
    tl.store(squares + row * TILES + tile, tl.sum(wide * wide))


def embed(
    tokens: Int[Tensor, " rows"],
    embedding: Float[Tensor, "vocab hidden"],
    norm: Float[Tensor, " hidden"],
    to: Stream,
    outputs: int,
    scale: float = 1.0,
) -> None:
    """Begin a stream with the embeddings of some tokens.

    Args:
        tokens: Ids, all of them below `vocab`.
        embedding: A row for each id.
        norm: The weight of the first norm.
        to: What is written.
        outputs: Neighbours whose squares are summed together.
        scale: Multiplies the embeddings.
    """
    rows, tiles = to.squares.shape
    is_chained = CHAINED and tokens.is_cuda
    _embed[(rows, tiles)](
        tokens,
        embedding,
        norm,
        to.values,
        to.weighted,
        to.squares,
        scale,
        HIDDEN=embedding.shape[1],
        OUTPUTS=outputs,
        TILES=tiles,
        IS_CHAINED=is_chained,
        **launch_options(1, is_chained=is_chained),
    )
