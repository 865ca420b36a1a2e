"""Whole rounds as CUDA graphs: draft, check, verdict and commit, without the host.

A graph is captured once for each batch size, draft length and reach of the cache; what it reads
and writes lies in buffers that all graphs of a batch size share. The graphs of a model pair share
one pool of memory, too: they run one after the other, and nothing in the pool outlives a round.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import Cuts
from draftsmith.core.noise import NoiseKeys
from draftsmith.kernels.cpu.sampling import NoiseSlot
from draftsmith.kernels.gpu import laws, noise, plain, verdicts
from draftsmith.kernels.gpu.columns import Columns, columns_of
from draftsmith.kernels.gpu.verdicts import Bests, State
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_pass import PassInputs

__all__ = ["Begin", "RoundGraph", "RoundGraphs", "bucket"]

_TIMED = 5
"""Replays by which a new graph is timed."""
_PADDING = (2, 0, 0, 0)
"""State of a sequence that nobody has: it stands where nothing is out of bounds."""
_GREEDY = Cuts(0.0, 0, 1.0, 0.0)


class Begin(NamedTuple):
    """Where one sequence stands before its first round here."""

    tokens: Sequence[int]
    slot: int
    draft_slot: int
    noise: NoiseSlot
    cuts: Cuts
    draft_cuts: Cuts


class RoundGraph(NamedTuple):
    """One round that can be run again and again."""

    replay: Callable[[], None]
    found: Int[Tensor, "batch twice_rows"]
    """The target's tokens, the drafted ones, and how many are kept, of each sequence."""
    seconds: float
    """What it took when it was captured; 0 where nothing is captured."""


class _Buffers(NamedTuple):
    """What the graphs of one batch size share, on the device."""

    state: State
    slots: Int[Tensor, " batch"]
    draft_slots: Int[Tensor, " batch"]
    keys: NoiseKeys
    columns: Columns
    draft_columns: Columns


class _Kind(NamedTuple):
    """What a graph is captured for."""

    batch: int
    gamma: int
    num_parts: int
    is_sampled: bool


class RoundGraphs:
    """The graphs of a target and a draft model, or of the target alone.

    Args:
        target: What checks.
        draft: What guesses; None decodes plainly.
    """

    def __init__(self, target: GpuDecoder, draft: GpuDecoder | None) -> None:
        self._target, self._draft = target, draft
        self._is_cuda = target.device.type == "cuda"
        self._buffers: dict[int, _Buffers] = {}
        self._graphs: dict[_Kind, RoundGraph] = {}
        self._versions = self._pool_versions()
        self._memory = torch.cuda.graph_pool_handle() if self._is_cuda else None

    def begin(self, sequences: Sequence[Begin]) -> None:
        """Tell the device which sequences run, and where they stand.

        Args:
            sequences: The batch; each has two tokens or more.
        """
        missing = bucket(len(sequences)) - len(sequences)
        buffers = self._buffers_of(len(sequences) + missing)
        numbers = [
            (len(one.tokens), one.tokens[-1], one.tokens[-2], 1, one.slot, one.draft_slot)
            for one in sequences
        ]
        table = torch.tensor([*numbers, *[(*_PADDING, 0, 0)] * missing], dtype=torch.int32)
        for held, column in zip((*buffers.state, *buffers[1:3]), table.T, strict=True):
            held.copy_(column)
        signed = [one.noise.seed - 2**64 * (one.noise.seed >= 2**63) for one in sequences]
        samples = [one.noise.sample for one in sequences]
        for held, column in zip(buffers.keys, (signed, samples), strict=True):
            held.copy_(torch.tensor([*column, *[0] * missing]))
        cuts = [one.cuts for one in sequences], [one.draft_cuts for one in sequences]
        for columns, own in zip((buffers.columns, buffers.draft_columns), cuts, strict=True):
            new = columns_of([*own, *[_GREEDY] * missing], torch.device("cpu"))
            for held, column in zip(columns, new, strict=True):
                held.copy_(column)

    def graph(self, batch: int, gamma: int, pages: int, *, is_sampled: bool) -> RoundGraph:
        """The graph of a round, captured where it is the first of its kind.

        Args:
            batch: Sequences, a power of two.
            gamma: Drafted tokens of each.
            pages: That the longest sequence has in use afterwards.
            is_sampled: Whether there are laws that are no point masses.
        """
        versions = self._pool_versions()
        if versions != self._versions:
            self._graphs.clear()
            self._versions = versions
        kind = _Kind(batch, gamma, self._target.num_parts(pages), is_sampled)
        if kind not in self._graphs:
            self._graphs[kind] = self._captured(kind)
        return self._graphs[kind]

    def draft_share(self, batch: int, gamma: int, pages: int, *, is_sampled: bool) -> float:
        """Which share of a round drafting takes, by the times of two graphs.

        Args:
            batch: As `graph` takes them.
            gamma: Likewise.
            pages: Likewise.
            is_sampled: Likewise.
        """
        with_draft = self.graph(batch, gamma, pages, is_sampled=is_sampled).seconds
        # A check of a few rows takes what a pass of one takes.
        without = self.graph(batch, 0, pages, is_sampled=is_sampled).seconds
        return max(0.0, 1 - without / with_draft) if gamma and with_draft > 0 else 0.0

    # --- capturing ----------------------------------------------------------------------------

    def _pool_versions(self) -> tuple[int, int]:
        return self._target.pool.version, 0 if self._draft is None else self._draft.pool.version

    def _buffers_of(self, batch: int) -> _Buffers:
        if batch not in self._buffers:
            device = self._target.device
            table = torch.zeros(6, batch, dtype=torch.int32, device=device)
            keys = torch.zeros(2, batch, dtype=torch.int64, device=device)
            columns = [columns_of([_GREEDY] * batch, device) for _ in range(2)]
            self._buffers[batch] = _Buffers(
                State(*table[:4]), table[4], table[5], NoiseKeys(*keys), *columns
            )
        return self._buffers[batch]

    def _captured(self, kind: _Kind) -> RoundGraph:
        """Capture a round, after one that nobody lives in has compiled its kernels."""
        device, buffers = self._target.device, self._buffers_of(kind.batch)
        found = torch.zeros(kind.batch, 2 * (kind.gamma + 1), dtype=torch.int32, device=device)
        if not self._is_cuda:
            # Nothing to capture: the kernels' twins, in the same order.
            return RoundGraph(lambda: self._body(kind, buffers, found), found, 0.0)
        kept = [one.clone() for one in buffers.state]
        for one, pad in zip(buffers.state, _PADDING, strict=True):
            one.fill_(pad)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._body(kind, buffers, found)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            self._body(kind, buffers, found)
        seconds = _seconds(graph.replay)
        for one, before in zip(buffers.state, kept, strict=True):
            one.copy_(before)
        return RoundGraph(graph.replay, found, seconds)

    def _body(self, kind: _Kind, buffers: _Buffers, found: Int[Tensor, "batch twice_rows"]) -> None:
        """Launch a round; nothing in it waits for the host."""
        batch, gamma = kind.batch, kind.gamma
        vocab_size = self._target.config.vocab_size
        kernels = verdicts if self._is_cuda else plain
        ints = buffers.slots.new_zeros
        starts, widths, tokens = ints(batch), ints(batch), ints(batch, gamma + 1)
        draft_starts, draft_widths = ints(max(1, gamma), batch), ints(max(1, gamma), batch)
        first, following = ints(batch, 2), ints(batch, 1)
        check = starts, widths, tokens
        draft_size = vocab_size if self._draft is None else self._draft.config.vocab_size
        kernels.prepare(buffers.state, check, (draft_starts, draft_widths, first), draft_size)
        fed = first
        for step in range(gamma):
            assert self._draft is not None
            at = draft_starts[step], draft_widths[step]
            own_parts = min(kind.num_parts, self._draft.pool.most_pages)
            logits = self._draft.run(PassInputs(*at, buffers.draft_slots, fed), own_parts)
            assert logits is not None
            last = logits.view(batch, -1, logits.shape[-1])[:, -1].contiguous()
            chosen = self._chosen(last, buffers, kind, first=step, is_draft=True)
            kernels.take_draft(chosen, tokens, following[:, 0], step + 1)
            fed = following
        inputs = PassInputs(starts, widths, buffers.slots, tokens)
        logits = self._target.run(inputs, kind.num_parts)
        assert logits is not None
        kernels.settle(self._chosen(logits, buffers, kind), tokens, buffers.state, found)

    def _chosen(
        self,
        logits: Float[Tensor, "rows columns"],
        buffers: _Buffers,
        kind: _Kind,
        *,
        first: int = 0,
        is_draft: bool = False,
    ) -> Bests:
        """The token that each row decides for; the first stands at position `first` of a round."""
        vocab_size = self._target.config.vocab_size
        if not kind.is_sampled:
            return (verdicts if self._is_cuda else plain).best_parts(logits, vocab_size)
        columns = buffers.draft_columns if is_draft else buffers.columns
        make, race = (
            (laws.laws, noise.race_parts) if self._is_cuda else (plain.laws, plain.race_parts)
        )
        probs = make(logits, columns, vocab_size).view(kind.batch, -1, vocab_size)
        return race(probs, buffers.keys, buffers.state.lengths, first)


def _seconds(replay: Callable[[], None]) -> float:
    """The median time of a few replays in a row."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(_TIMED + 1)]
    marks[0].record()
    for mark in marks[1:]:
        replay()
        mark.record()
    marks[-1].synchronize()
    times = sorted(one.elapsed_time(other) for one, other in pairwise(marks))
    return times[_TIMED // 2] / 1000


def bucket(batch: int) -> int:
    """The batch size that a graph has for so many sequences.

    Example:
        >>> [bucket(batch) for batch in (1, 2, 3, 5)]
        [1, 2, 4, 8]
    """
    return 1 << (batch - 1).bit_length()
