"""The coupled noise on a GPU: Philox words and the race over a vocabulary in one reading of a law.

`core.noise` makes every number of a vocabulary first, in some sixty launches; here a program makes
the words of its ids and keeps the winner alone. Words are the same to the bit; a logarithm is
rounded otherwise, so that a token can differ from a CPU's where two arrive within 1e-6 of each
other.
"""

from contextlib import nullcontext
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.noise import CounterNoise, NoiseKeys, Stream
from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait
from draftsmith.kernels.gpu.verdicts import Bests

__all__ = ["GpuCounterNoise", "race", "race_parts"]

_BLOCKS = 1024
"""Of four ids each, of one program."""


class GpuCounterNoise(CounterNoise):
    """A `CounterNoise` whose races are run by a kernel; its arguments."""

    def race(
        self, first: int, probs: Float[Tensor, "batch rows vocab"]
    ) -> Int[Tensor, "batch rows"]:
        """The winners under the coupled noise at drafted indices first … first + rows - 1."""
        return race(probs, self.keys, self.positions + first)


@no_type_check
@triton.jit
def _race(
    probs,
    seeds,
    samples,
    positions,
    bests,
    ids,
    first_position,
    num_rows,
    vocab_size,
    STREAM: tl.constexpr,
    BLOCKS: tl.constexpr,
    IS_CHAINED: tl.constexpr,
) -> None:
    release(IS_CHAINED)
    wait(IS_CHAINED)
    line, part = tl.program_id(0), tl.program_id(1)
    one, row = line // num_rows, line % num_rows
    seed = tl.load(seeds + one)
    key_0, key_1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    blocks = part * BLOCKS + tl.arange(0, BLOCKS)
    word_0 = blocks.to(tl.uint32)
    zeros = word_0 * 0
    word_1 = zeros + (tl.load(positions + one) + first_position + row).to(tl.uint32)
    word_2 = zeros + STREAM
    word_3 = zeros + tl.load(samples + one).to(tl.uint32)
    # Salmon et al. (2011): ten rounds, written out since the counter is all ours.
    for _ in tl.static_range(10):
        high_0, low_0 = tl.umulhi(word_0, 0xD2511F53), word_0 * 0xD2511F53
        high_1, low_1 = tl.umulhi(word_2, 0xCD9E8D57), word_2 * 0xCD9E8D57
        word_0, word_1 = high_1 ^ word_1 ^ key_0, low_1
        word_2, word_3 = high_0 ^ word_3 ^ key_1, low_0
        key_0, key_1 = key_0 + 0x9E3779B9, key_1 + 0xBB67AE85
    best, winner = float("inf"), 2147483647
    law = probs + line.to(tl.int64) * vocab_size
    for place in tl.static_range(4):
        if place == 0:
            word = word_0
        elif place == 1:
            word = word_1
        elif place == 2:
            word = word_2
        else:
            word = word_3
        tokens = blocks * 4 + place
        masses = tl.load(law + tokens, mask=tokens < vocab_size, other=0.0)
        fraction = word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
        fraction = tl.minimum(fraction, 0.99999994)
        # log(1 - x) where 1 - x is rounded (Goldberg 1991, theorem 4).
        rest = 1.0 - fraction
        lost = 1.0 - rest
        ratio = fraction / tl.where(lost == 0.0, 1.0, lost)
        noise = tl.where(lost == 0.0, fraction, -tl.log(rest) * ratio)
        is_running = masses > 0.0
        arrival = tl.where(is_running, noise / tl.where(is_running, masses, 1.0), float("inf"))
        soonest = tl.min(arrival, axis=0)
        first = tl.min(tl.where(arrival == soonest, tokens, 2147483647), axis=0)
        is_better = (soonest < best) | ((soonest == best) & (first < winner))
        winner = tl.where(is_better, first, winner)
        best = tl.where(is_better, soonest, best)
    to = line * tl.num_programs(1) + part
    tl.store(bests + to, -best)
    tl.store(ids + to, winner)


def race_parts(
    probs: Float[Tensor, "batch rows vocab"],
    keys: NoiseKeys,
    positions: Int[Tensor, " batch"],
    first: int = 0,
) -> Bests:
    """The token of each part of each row that arrives first: noise over probability.

    Args:
        probs: Float32, contiguous.
        keys: Whose noise.
        positions: Of each sequence.
        first: What is added to them for the first row; the next has the next.

    Returns:
        Arrivals, negative, so that the best is the largest; minus infinity without mass.
    """
    batch, rows, vocab = probs.shape
    parts = -(-vocab // (4 * _BLOCKS))
    found = Bests(
        probs.new_empty(batch * rows, parts),
        probs.new_empty(batch * rows, parts, dtype=torch.int32),
    )
    is_chained = CHAINED and probs.is_cuda
    _race[(batch * rows, parts)](
        probs,
        keys.seeds,
        keys.samples,
        positions,
        *found,
        first,
        rows,
        vocab,
        STREAM=int(Stream.COUPLED),
        BLOCKS=_BLOCKS,
        IS_CHAINED=is_chained,
        **launch_options(4, is_chained=is_chained),
    )
    return found


def race(
    probs: Float[Tensor, "batch rows vocab"], keys: NoiseKeys, positions: Int[Tensor, " batch"]
) -> Int[Tensor, "batch rows"]:
    """The token of each row that arrives first, ties to the lowest id.

    Args:
        probs: Float32.
        keys: Whose noise.
        positions: Of each sequence's first row; the next has the next.

    Returns:
        The winners; 0 for a row without mass.
    """
    own = NoiseKeys(keys.seeds.contiguous(), keys.samples.contiguous())
    with torch.cuda.device(probs.device) if probs.is_cuda else nullcontext():
        arrivals, ids = race_parts(probs.contiguous(), own, positions.contiguous())
    part = arrivals.argmax(dim=-1, keepdim=True)
    return ids.gather(1, part).view(probs.shape[:2]).long()
