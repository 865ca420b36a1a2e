"""Sampling on a CPU without sorting: the fast twins of the core's laws and noise.

Each function falls back on the plain one where the library is missing or the tensors are not its
own (another device, float64). Texts are the same: noise words to the bit, laws to rounding.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.laws import History, Law, SamplingLaw
from draftsmith.core.noise import CounterNoise, NoiseKeys, RoundNoise, Stream, stream_offset
from draftsmith.core.params import SamplingParams
from draftsmith.kernels.cpu.library import Library, library

__all__ = ["CpuCounterNoise", "CpuSamplingLaw", "counter_noise", "has_mass", "sampling_law"]


def sampling_law(
    params: SamplingParams,
    eos_token_ids: tuple[int, ...],
    demands: Demands = NO_DEMANDS,
    source: tuple[int, ...] = (),
) -> Law:
    """The law that `SamplingLaw` of these arguments is, fast for logits on a CPU."""
    plain = SamplingLaw(params, eos_token_ids, demands, source)
    loaded = library()
    return plain if loaded is None else CpuSamplingLaw(plain, loaded)


def counter_noise(
    keys: NoiseKeys,
    rounds: Int[Tensor, " batch"],
    positions: Int[Tensor, " batch"],
    level: int = 0,
    inner_round: int = 0,
) -> RoundNoise:
    """The noise of one round; its arguments are those of `CounterNoise`."""
    loaded = library()
    if loaded is None or rounds.device.type != "cpu":
        return CounterNoise(keys, rounds, positions, level, inner_round)
    return CpuCounterNoise(loaded, keys, rounds, positions, level, inner_round)


def has_mass(laws: Float[Tensor, "rows vocab"]) -> Bool[Tensor, " rows"]:
    """Which laws are distributions; the others are all zeros."""
    loaded = library()
    if loaded is None or not _is_ours(laws):
        return laws.sum(dim=-1) > 0
    laws, found = laws.contiguous(), torch.empty(len(laws), dtype=torch.bool)
    loaded.ds_has_mass(laws.data_ptr(), *laws.shape, found.data_ptr())
    return found


@dataclass(frozen=True)
class CpuSamplingLaw:
    """A `SamplingLaw` whose transform behind bias, bans and penalties takes two passes a row."""

    plain: SamplingLaw
    library: Library

    @property
    def is_greedy(self) -> bool:
        """Whether every distribution is a point mass."""
        return self.plain.is_greedy

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        params = self.plain.params
        if params.is_greedy or logits.device.type != "cpu":
            return self.plain(logits, history, drafted)
        scores = _rows(self.plain.adjusted(logits, history, drafted))
        laws = torch.empty(scores.shape)
        cuts = (params.temperature, params.top_k, params.top_p, params.min_p)
        self.library.ds_law(
            scores.data_ptr(), scores.stride(0), *scores.shape, *cuts, laws.data_ptr()
        )
        return laws

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand; `NO_TOKEN` for a law without mass."""
        if logits.device.type != "cpu":
            return self.plain.points(logits, history, drafted)
        scores = _rows(self.plain.adjusted(logits, history, drafted))
        tokens = torch.empty(len(scores), dtype=torch.long)
        self.library.ds_point(scores.data_ptr(), scores.stride(0), *scores.shape, tokens.data_ptr())
        return tokens


class CpuCounterNoise:
    """A `CounterNoise` that computes the words that a choice needs, and no logarithm in vain."""

    def __init__(
        self,
        loaded: Library,
        keys: NoiseKeys,
        rounds: Int[Tensor, " batch"],
        positions: Int[Tensor, " batch"],
        level: int = 0,
        inner_round: int = 0,
    ) -> None:
        self._library = loaded
        self._keys = NoiseKeys(keys.seeds.contiguous(), keys.samples.contiguous())
        self._rounds = rounds.contiguous()
        self._positions = positions.contiguous()
        self._level = level
        self._inner_round = inner_round

    @cached_property
    def _plain(self) -> CounterNoise:
        return CounterNoise(
            self._keys, self._rounds, self._positions, self._level, self._inner_round
        )

    def uniforms(self, stream: int, count: int) -> Float[Tensor, "batch count"]:
        """Independent draws from [0, 1), a function of (key, stream, round, column)."""
        drawn = torch.empty(len(self._rounds), count, dtype=torch.float64)
        stream += stream_offset(self._level, self._inner_round)
        keys = (self._keys.seeds.data_ptr(), self._keys.samples.data_ptr())
        rounds = (self._rounds.data_ptr(), len(self._rounds))
        self._library.ds_uniforms(*keys, *rounds, stream, count, drawn.data_ptr())
        return drawn

    def exponentials(self, first: int, count: int, vocab: int) -> Float[Tensor, "batch count v"]:
        """Standard exponentials, a function of (key, position, token id)."""
        return self._plain.exponentials(first, count, vocab)

    def draw(
        self, stream: int, column: int, probs: Float[Tensor, "batch vocab"]
    ) -> Int[Tensor, " batch"]:
        """Invert each CDF at the uniform in this column of a stream."""
        if not _is_ours(probs):
            return self._plain.draw(stream, column, probs)
        uniforms = self.uniforms(stream, column + 1)[:, column].contiguous()
        probs, tokens = probs.contiguous(), torch.empty(len(probs), dtype=torch.long)
        self._library.ds_draw(
            probs.data_ptr(), *probs.shape, uniforms.data_ptr(), tokens.data_ptr()
        )
        return tokens

    def race(
        self, first: int, probs: Float[Tensor, "batch rows vocab"]
    ) -> Int[Tensor, "batch rows"]:
        """The winners under the coupled noise at drafted indices first … first + rows - 1."""
        if not _is_ours(probs):
            return self._plain.race(first, probs)
        assert len(probs) == len(self._positions)
        probs, winners = probs.contiguous(), torch.empty(probs.shape[:2], dtype=torch.long)
        keys = (self._keys.seeds.data_ptr(), self._keys.samples.data_ptr())
        where = (self._positions.data_ptr(), first, int(Stream.COUPLED))
        self._library.ds_race(probs.data_ptr(), *probs.shape, *keys, *where, winners.data_ptr())
        return winners


def _is_ours(laws: Tensor) -> bool:
    return laws.device.type == "cpu" and laws.dtype is torch.float32


def _rows(scores: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    """The same with neighbours side by side; rows may lie apart."""
    return scores if scores.stride(1) == 1 else scores.contiguous()
