"""Whole rounds as CUDA graphs: draft, check, verdict and commit, without the host.

A graph is captured once for each batch size, draft length and reach of the cache; what it reads
and writes lies in buffers that all graphs of a batch size share. They share one pool of memory,
too: they run one after the other, and nothing in the pool outlives a round.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.gpu_head import GpuHead
from draftsmith.engine.rounds.buffers import PADDING, Begin, Buffers, Kind, bucket
from draftsmith.engine.rounds.device_drafts import (
    DeviceDraft,
    LookupDraft,
    ModelDraft,
    NoDraft,
    chosen,
)
from draftsmith.engine.rounds.head_draft import HeadDraft
from draftsmith.kernels.gpu import plain, verdicts
from draftsmith.kernels.gpu.capture import GraphPool
from draftsmith.models.native.gpu_pass import PassInputs
from draftsmith.models.native.gpu_runner import GpuRunner
from draftsmith.parallel.orders import Shared, together

__all__ = ["RoundGraph", "RoundGraphs", "round_graphs"]

_TIMED = 5
"""Replays by which a new graph is timed."""


class RoundGraph(NamedTuple):
    """One round that can be run again and again."""

    replay: Callable[[], None]
    found: Int[Tensor, "batch twice_rows"]
    """The target's tokens, the drafted ones (-1 where none is), and how many are kept."""
    seconds: float
    """What it took when it was captured; 0 where nothing is captured."""


class RoundGraphs(Shared):
    """The graphs of a target and what drafts for it.

    Every rank of a group has them: each comes to the same verdicts, from the same logits and the
    same noise, and no token travels.

    Args:
        target: What checks.
        draft: What guesses.
    """

    def __init__(self, target: GpuRunner, draft: DeviceDraft) -> None:
        self._target, self._draft = target, draft
        self._is_cuda = target.is_cuda
        self._buffers: dict[int, Buffers] = {}
        self._graphs: dict[Kind, RoundGraph] = {}
        self._versions = self._pool_versions()
        self._pool = GraphPool(target.device) if target.is_cuda else None

    def let_go(self) -> None:
        """Drop all graphs, which may hold collectives."""
        self._graphs.clear()

    @together
    def begin(self, sequences: Sequence[Begin]) -> None:
        """Tell the device which sequences run, and where they stand.

        Args:
            sequences: The batch; each has two tokens or more.
        """
        self._buffers_of(bucket(len(sequences))).begin(sequences)

    def kind(
        self, batch: int, gamma: int, pages: int, *, is_sampled: bool, before: int = 0
    ) -> Kind:
        """What tells a round's graph from others.

        Args:
            batch: Sequences, a power of two.
            gamma: Drafted tokens of each, at most.
            pages: That the longest sequence has in use afterwards.
            is_sampled: Whether there are laws that are no point masses.
            before: Drafted tokens of the round before, at most; 0 where it is the first here.
        """
        num_fresh = self._draft.num_fresh(batch, gamma, before)
        return Kind(batch, gamma, self._target.num_parts(pages), is_sampled, num_fresh)

    def has(self, kind: Kind) -> bool:
        """Whether a graph is captured, and can still be used."""
        versions = self._pool_versions()
        if versions != self._versions:
            self._graphs.clear()
            self._versions = versions
        return kind in self._graphs

    @together
    def capture(self, kind: Kind) -> None:
        """Capture a round, and the same without a draft: beside it the draft's share is known."""
        for one in (kind, _without_draft(kind)):
            if not self.has(one):
                self._graphs[one] = self._captured(one)

    @together
    def replay(self, kind: Kind) -> Int[Tensor, "batch twice_rows"]:
        """Run a round that was captured before; what it finds, which the next one writes over."""
        graph = self._graphs[kind]
        graph.replay()
        return graph.found

    def standing(self) -> list[list[int]]:
        """Where the sequences of every batch size stand: the same on every rank."""
        return [torch.stack(buffers.state).view(-1).tolist() for buffers in self._buffers.values()]

    def draft_share(self, kind: Kind) -> float:
        """Which share of a round drafting takes, by the times of two graphs."""
        with_draft = self._graphs[kind].seconds
        # A check of a few rows takes what a pass of one takes.
        without = self._graphs[_without_draft(kind)].seconds
        return max(0.0, 1 - without / with_draft) if kind.gamma and with_draft > 0 else 0.0

    # --- capturing ----------------------------------------------------------------------------

    def _pool_versions(self) -> tuple[int, int]:
        store = self._draft.store
        return self._target.store.version, 0 if store is None else store.version

    def _buffers_of(self, batch: int) -> Buffers:
        if batch not in self._buffers:
            capacity = self._target.config.context_length if self._draft.has_history else 0
            self._buffers[batch] = Buffers(batch, self._target.device, capacity, self._draft.like)
        return self._buffers[batch]

    def _captured(self, kind: Kind) -> RoundGraph:
        """Capture a round, after one that nobody lives in has compiled its kernels."""
        device, buffers = self._target.device, self._buffers_of(kind.batch)
        found = torch.zeros(kind.batch, 2 * (kind.gamma + 1), dtype=torch.int32, device=device)
        if self._pool is None:
            # Nothing to capture: the kernels' twins, in the same order.
            return RoundGraph(lambda: self._body(kind, buffers, found), found, 0.0)
        kept = [one.clone() for one in buffers.between_rounds]
        for one, pad in zip(buffers.state, PADDING, strict=True):
            one.fill_(pad)
        graph, _ = self._pool.captured(lambda: self._body(kind, buffers, found))
        seconds = _seconds(graph.replay)
        for one, before in zip(buffers.between_rounds, kept, strict=True):
            one.copy_(before)
        return RoundGraph(graph.replay, found, seconds)

    def _body(self, kind: Kind, buffers: Buffers, found: Int[Tensor, "batch twice_rows"]) -> None:
        """Launch a round; nothing in it waits for the host."""
        check = self._draft.launch(kind, buffers)
        inputs = PassInputs(check.starts, check.widths, buffers.slots, check.tokens)
        boundaries = self._draft.boundaries if kind.gamma else ()
        logits, states = self._target.run(inputs, kind.num_parts, boundaries=boundaries)
        assert logits is not None
        vocab_size = self._target.config.vocab_size
        bests = chosen(logits, buffers, kind, buffers.columns, vocab_size)
        settle = verdicts.settle if self._is_cuda else plain.settle
        settle(bests, check.tokens, buffers.state, found, check.nums, buffers.history)
        if states is not None:
            self._draft.leave(buffers, states, found)


def _without_draft(kind: Kind) -> Kind:
    return kind._replace(gamma=0, num_fresh=0)


def round_graphs(
    target: GpuRunner, draft: GpuRunner | GpuHead | None, ngrams: tuple[int, int] | None
) -> RoundGraphs:
    """The graphs of a target, and of a draft model, a head, prompt lookup, or nothing.

    Args:
        target: What checks.
        draft: A model or a head that guesses; None is none.
        ngrams: Prompt lookup's shortest and longest match; None is none.
    """
    vocab_size = target.config.vocab_size
    if isinstance(draft, GpuHead):
        return RoundGraphs(target, HeadDraft(draft, vocab_size))
    if draft is not None:
        return RoundGraphs(target, ModelDraft(draft, vocab_size))
    if ngrams is not None:
        return RoundGraphs(target, LookupDraft(vocab_size, ngrams))
    return RoundGraphs(target, NoDraft(vocab_size))


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
