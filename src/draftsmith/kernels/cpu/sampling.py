"""Sampling on a CPU without sorting: the fast twins of the core's laws and noise.

Each function falls back on the plain one where the library is missing or the tensors are not its
own (another device, float64). Texts are the same: noise words to the bit, laws to rounding.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.laws import Cuts, History, Law, SamplingLaw
from draftsmith.core.noise import (
    CounterNoise,
    NoiseKeys,
    RoundNoise,
    Stream,
    exponentials_of,
    stream_offset,
)
from draftsmith.core.params import SamplingParams
from draftsmith.core.sampling_table import (
    LogitRows,
    laws_of_rows,
    points_of_rows,
    top_ids_of_rows,
)
from draftsmith.kernels.cpu.library import Library, library

__all__ = [
    "CpuCounterNoise",
    "CpuSamplingLaw",
    "NoiseSlot",
    "counter_noise",
    "exponentials_at",
    "has_mass",
    "laws",
    "noise_of",
    "points",
    "points_and_ids",
    "sampling_law",
    "top_ids",
]


class NoiseSlot(NamedTuple):
    """Whose noise, and where in it: one sequence's columns of a `RoundNoise`."""

    seed: int
    """64 bits, without a sign."""
    sample: int
    round: int
    position: int


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
    if rounds.is_cuda and _has_triton(rounds.device):
        # Here, because it imports Triton, which not every installation has.
        from draftsmith.kernels.gpu.noise import GpuCounterNoise

        return GpuCounterNoise(keys, rounds, positions, level, inner_round)
    if loaded is None or rounds.device.type != "cpu":
        return CounterNoise(keys, rounds, positions, level, inner_round)
    return CpuCounterNoise(loaded, keys, rounds, positions, level, inner_round)


def noise_of(
    slots: Sequence[NoiseSlot], device: torch.device, level: int = 0, inner_round: int = 0
) -> RoundNoise:
    """The noise of one round of some sequences, a row for each."""
    seeds, samples, rounds, positions = _columns_of(slots, device)
    return counter_noise(NoiseKeys(seeds, samples), rounds, positions, level, inner_round)


def exponentials_at(
    slots: Sequence[NoiseSlot], ids: Int[Tensor, "batch ids"]
) -> Float[Tensor, "batch ids"]:
    """The coupled noise of some ids at the position of each slot."""
    seeds, samples, _, positions = _columns_of(slots, ids.device)
    return exponentials_of(NoiseKeys(seeds, samples), positions, ids)


def _columns_of(slots: Sequence[NoiseSlot], device: torch.device) -> tuple[Tensor, ...]:
    table = torch.tensor(
        [(_signed(one.seed), one.sample, one.round, one.position) for one in slots],
        dtype=torch.long,
    )
    # Columns that lie side by side, each as a whole.
    return tuple(table.T.contiguous().to(device))


@cache
def _has_triton(device: torch.device) -> bool:
    """Whether the kernels of a GPU can be compiled for this one."""
    is_new_enough = torch.cuda.get_device_capability(device) >= (8, 0)
    return is_new_enough and find_spec("triton") is not None


def _signed(seed: int) -> int:
    return seed - 2**64 if seed >= 2**63 else seed


def points(rows: LogitRows) -> Int[Tensor, " rows"]:
    """The tokens that `points_of_rows` finds."""
    loaded = library()
    if loaded is None or not _lies_open(rows):
        return points_of_rows(rows)
    starts, found = _starts(rows), torch.empty(len(rows.places), dtype=torch.long)
    where = (rows.logits.data_ptr(), ctypes.addressof(starts), len(starts), rows.vocab_size)
    loaded.ds_points(*where, found.data_ptr())
    return found


def top_ids(rows: LogitRows, count: int) -> Int[Tensor, "rows count"]:
    """The ids that `top_ids_of_rows` finds."""
    found = _points_and_ids(rows, count)
    return top_ids_of_rows(rows, count) if found is None else found[1]


def points_and_ids(
    rows: LogitRows, count: int
) -> tuple[Int[Tensor, " rows"], Int[Tensor, "rows count"]]:
    """What `points` and `top_ids` find, in one look at the rows."""
    found = _points_and_ids(rows, count)
    return (points(rows), top_ids_of_rows(rows, count)) if found is None else found


def _points_and_ids(
    rows: LogitRows, count: int
) -> tuple[Int[Tensor, " rows"], Int[Tensor, "rows count"]] | None:
    """Both from the kernels; None where they are not for these rows, or one holds NaN."""
    loaded, size = library(), rows.vocab_size
    is_ours = loaded is not None and hasattr(loaded, "ds_points_and_ids") and _lies_open(rows)
    if loaded is None or not is_ours or not 0 < count < size:
        return None
    starts = _starts(rows)
    tokens = torch.empty(len(starts), dtype=torch.long)
    found = torch.empty(len(starts), count, dtype=torch.long)
    where = (rows.logits.data_ptr(), ctypes.addressof(starts), len(starts), size, count)
    is_good = loaded.ds_points_and_ids(*where, tokens.data_ptr(), found.data_ptr())
    return (tokens, found) if is_good else None


def laws(rows: LogitRows, cuts: Sequence[Cuts]) -> Float[Tensor, "rows vocab"]:
    """The laws that `laws_of_rows` makes, without a sort."""
    if rows.logits.is_cuda and _has_triton(rows.logits.device):
        # Here, because it imports Triton, which not every installation has.
        from draftsmith.kernels.gpu import columns, laws

        device = rows.logits.device
        with torch.cuda.device(device):
            asked = columns.columns_of(cuts, device)
            return laws.laws(rows.picked().contiguous(), asked, rows.vocab_size)
    loaded = library()
    if loaded is None or not _lies_open(rows):
        return laws_of_rows(rows, cuts)
    return _laws(loaded, rows.logits, _starts(rows), rows.vocab_size, cuts)


def _lies_open(rows: LogitRows) -> bool:
    """Whether the kernels can read the rows where they lie."""
    logits = rows.logits
    has_all = logits.shape[-1] >= rows.vocab_size
    return _is_ours(logits) and logits.stride(-1) == 1 and has_all


def _starts(rows: LogitRows) -> ctypes.Array[ctypes.c_int64]:
    """Where each row begins, in numbers from the first."""
    # Arrays of C, no tensors: a pass leaves caches full of weights, and a call of torch 20 us dear.
    by_sequence, by_token, _ = rows.logits.stride()
    places = rows.places
    return (ctypes.c_int64 * len(places))(*[i * by_sequence + j * by_token for i, j in places])


def _laws(
    loaded: Library,
    scores: Float[Tensor, "*rows columns"],
    starts: ctypes.Array[ctypes.c_int64],
    vocab_size: int,
    cuts: Sequence[Cuts],
) -> Float[Tensor, "rows vocab"]:
    found = torch.empty(len(starts), vocab_size)
    columns = _columns(tuple(cuts))
    loaded.ds_laws(
        scores.data_ptr(),
        ctypes.addressof(starts),
        len(starts),
        vocab_size,
        *(ctypes.addressof(column) for column in columns),
        found.data_ptr(),
    )
    return found


@lru_cache(maxsize=64)
def _columns(
    cuts: tuple[Cuts, ...],
) -> tuple[
    ctypes.Array[ctypes.c_float],
    ctypes.Array[ctypes.c_int32],
    ctypes.Array[ctypes.c_double],
    ctypes.Array[ctypes.c_float],
]:
    """The four numbers of some rows, column by column; most batches ask for the same again."""
    count = len(cuts)
    return (
        (ctypes.c_float * count)(*[one.temperature for one in cuts]),
        (ctypes.c_int32 * count)(*[one.top_k for one in cuts]),
        (ctypes.c_double * count)(*[one.top_p for one in cuts]),
        (ctypes.c_float * count)(*[one.min_p for one in cuts]),
    )


def _apart(scores: Float[Tensor, "rows vocab"]) -> ctypes.Array[ctypes.c_int64]:
    """Where the rows of a matrix begin."""
    stride = scores.stride(0)
    return (ctypes.c_int64 * len(scores))(*[row * stride for row in range(len(scores))])


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

    @property
    def cuts(self) -> Cuts | None:
        """What the law is after every prefix."""
        return self.plain.cuts

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
        cuts = Cuts(params.temperature, params.top_k, params.top_p, params.min_p)
        return _laws(self.library, scores, _apart(scores), scores.shape[-1], [cuts] * len(scores))

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
        starts, tokens = _apart(scores), torch.empty(len(scores), dtype=torch.long)
        where = (scores.data_ptr(), ctypes.addressof(starts), *scores.shape)
        self.library.ds_points(*where, tokens.data_ptr())
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
