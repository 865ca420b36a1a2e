"""Counter-based noise: the same numbers on any device, in any batch order.

Every number is a pure function of (seed, sample, stream, counter), by Philox4x32-10 of Salmon,
Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). Streams keep the
draft's draws, the acceptance tests, the emitted token and the coupled noise apart.
"""

from abc import abstractmethod
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.verdict import draw, race

__all__ = [
    "CounterNoise",
    "NoiseKeys",
    "PointMassNoise",
    "RoundNoise",
    "Stream",
    "exponentials",
    "exponentials_of",
    "stream_offset",
    "uniforms",
]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_NUM_PHILOX_ROUNDS = 10
_STREAMS_PER_LEVEL = 8


class Stream(IntEnum):
    """What a random number is for; no two uses share a stream."""

    DRAFT = 0
    """Picks a drafted token (`rejection` and `block`)."""
    ACCEPT = 1
    """Decides whether a drafted token is kept."""
    EMIT = 2
    """Picks the token after the kept ones: a residual draw or the bonus."""
    COUPLED = 3
    """The noise that draft and target share under the `coupled` verifier."""


class NoiseKeys(NamedTuple):
    """Whose noise: one row a sequence."""

    seeds: Int[Tensor, " batch"]
    """64-bit seeds, stored as two's complement."""
    samples: Int[Tensor, " batch"]
    """Which of the `n` samples of a request, from 0."""


@runtime_checkable
class RoundNoise(Protocol):
    """The random numbers that one round of one batch may use, and the choices made with them."""

    @abstractmethod
    def uniforms(self, stream: int, count: int) -> Float[Tensor, "batch count"]:
        """Independent draws from [0, 1), fresh for this round."""
        ...

    @abstractmethod
    def exponentials(self, first: int, count: int, vocab: int) -> Float[Tensor, "batch count v"]:
        """The coupled noise at drafted indices first … first + count - 1, by token id."""
        ...

    def draw(
        self, stream: int, column: int, probs: Float[Tensor, "batch vocab"]
    ) -> Int[Tensor, " batch"]:
        """Invert each CDF at the uniform in this column of a stream."""
        return draw(probs, self.uniforms(stream, column + 1)[:, column])

    def race(
        self, first: int, probs: Float[Tensor, "batch rows vocab"]
    ) -> Int[Tensor, "batch rows"]:
        """The winners under the coupled noise at drafted indices first … first + rows - 1."""
        return race(probs, self.exponentials(first, *probs.shape[1:]))


class CounterNoise(RoundNoise):
    """The noise of one round: uniforms by round, coupled noise by position.

    Uniforms are keyed by the round and not by the position: a position can be looked at in two
    rounds (block verification looks at all of a draft), and must not see the same number twice.
    The coupled noise is keyed by the position, since it defines the text.

    Args:
        keys: Seed and sample number of each sequence.
        rounds: Rounds that each sequence has finished.
        positions: Absolute position of the first token that this round decides.
        level: 0 for the target; a drafter that speculates itself uses 1 and up.
        inner_round: Which of the drafter's own rounds within this one.
    """

    def __init__(
        self,
        keys: NoiseKeys,
        rounds: Int[Tensor, " batch"],
        positions: Int[Tensor, " batch"],
        level: int = 0,
        inner_round: int = 0,
    ) -> None:
        self.keys = keys
        self.positions = positions
        self._rounds = rounds
        self._offset = stream_offset(level, inner_round)
        self._coupled: dict[tuple[int, int], Tensor] = {}

    def uniforms(self, stream: int, count: int) -> Float[Tensor, "batch count"]:
        """Independent draws from [0, 1), a function of (key, stream, round, column)."""
        columns = torch.arange(count, device=self._rounds.device)
        return uniforms(self.keys, self._offset + stream, self._rounds, columns)

    def exponentials(self, first: int, count: int, vocab: int) -> Float[Tensor, "batch count v"]:
        """Standard exponentials, a function of (key, position, token id); kept for the round."""
        return torch.stack([self._row(index, vocab) for index in range(first, first + count)], 1)

    def _row(self, index: int, vocab: int) -> Float[Tensor, "batch v"]:
        if (index, vocab) not in self._coupled:
            row = exponentials(self.keys, self.positions + index, vocab)
            self._coupled[index, vocab] = row
        return self._coupled[index, vocab]


class PointMassNoise(RoundNoise):
    """Noise for point masses (temperature 0), where every number gives the same choice."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self._batch = batch
        self._device = device

    def uniforms(self, stream: int, count: int) -> Float[Tensor, "batch count"]:
        """Zeros: a point mass is kept or not whatever the draw."""
        del stream
        return torch.zeros(self._batch, count, dtype=torch.float64, device=self._device)

    def exponentials(self, first: int, count: int, vocab: int) -> Float[Tensor, "batch count v"]:
        """Ones, without memory: the race is won by the only token that runs."""
        del first
        return torch.ones((), device=self._device).expand(self._batch, count, vocab)


def stream_offset(level: int, inner_round: int) -> int:
    """What is added to a stream's number, so that rounds within rounds share none."""
    return level * _STREAMS_PER_LEVEL + (inner_round << 8)


def uniforms(
    keys: NoiseKeys, stream: int, counters: Int[Tensor, " batch"], columns: Int[Tensor, " count"]
) -> Float[Tensor, "batch count"]:
    """Float64 draws from [0, 1) with 53 random bits each.

    Example:
        >>> import torch
        >>> keys = NoiseKeys(torch.tensor([7]), torch.tensor([0]))
        >>> one, two = uniforms(keys, Stream.ACCEPT, torch.tensor([3]), torch.arange(2))[0].tolist()
        >>> 0 <= one < 1 and one != two
        True
    """
    high, low, _, _ = _philox(
        keys, block=columns.unsqueeze(0), counter=counters.unsqueeze(1), stream=stream
    )
    return ((high << 21) | (low >> 11)).double() * 2.0**-53


def exponentials(
    keys: NoiseKeys, positions: Int[Tensor, " batch"], vocab: int
) -> Float[Tensor, "batch v"]:
    """Float32 standard exponentials, one a token id; -log of one is a standard Gumbel.

    Resolution is finest near 0 (steps of 2^-32), where races are won; the largest value is 16.6.
    """
    blocks = torch.arange(-(-vocab // 4), device=positions.device).unsqueeze(0)
    words = _philox(keys, block=blocks, counter=positions.unsqueeze(1), stream=Stream.COUPLED)
    return _exponential(torch.stack(words, dim=-1).flatten(1)[:, :vocab])


def exponentials_of(
    keys: NoiseKeys, positions: Int[Tensor, " batch"], ids: Int[Tensor, "batch ids"]
) -> Float[Tensor, "batch ids"]:
    """What `exponentials` gives to some token ids, without a look at the others.

    Example:
        >>> import torch
        >>> keys, positions = NoiseKeys(torch.tensor([7]), torch.tensor([0])), torch.tensor([3])
        >>> whole = exponentials(keys, positions, 9)
        >>> torch.equal(exponentials_of(keys, positions, torch.tensor([[8, 2]])), whole[:, [8, 2]])
        True
    """
    words = _philox(keys, block=ids // 4, counter=positions.unsqueeze(1), stream=Stream.COUPLED)
    bits = torch.stack(words, dim=-1).gather(-1, (ids % 4).unsqueeze(-1))
    return _exponential(bits.squeeze(-1))


def _exponential(bits: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
    """A standard exponential of each 32 random bits."""
    # The half step keeps 0 out; the clamp keeps 1 out, where float32 would give infinity.
    fraction = (bits.float() * 2.0**-32 + 2.0**-33).clamp_(max=1 - 2.0**-24)
    return torch.log1p(-fraction).neg_()


def _philox(
    keys: NoiseKeys,
    *,
    block: Int[Tensor, "#batch n"],
    counter: Int[Tensor, "#batch 1"],
    stream: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words for each counter (block, counter, stream, sample), as int64 tensors."""
    seeds = keys.seeds.unsqueeze(1)
    key_0, key_1 = seeds & _MASK, (seeds >> 32) & _MASK
    zeros = torch.zeros_like(block + counter)
    word_0, word_1 = zeros + block, zeros + (counter & _MASK)
    word_2, word_3 = zeros + stream, zeros + (keys.samples.unsqueeze(1) & _MASK)
    for _ in range(_NUM_PHILOX_ROUNDS):
        # int64 products wrap, yet their bits are those of the unsigned 64-bit product.
        product_0, product_1 = word_0 * _MULTIPLIERS[0], word_2 * _MULTIPLIERS[1]
        word_0 = ((product_1 >> 32) & _MASK) ^ word_1 ^ key_0
        word_2 = ((product_0 >> 32) & _MASK) ^ word_3 ^ key_1
        word_1, word_3 = product_1 & _MASK, product_0 & _MASK
        key_0, key_1 = (key_0 + _WEYL[0]) & _MASK, (key_1 + _WEYL[1]) & _MASK
    return word_0, word_1, word_2, word_3
