"""Greedy rounds on a GPU, each one CUDA graph: draft, check, verdict and commit without the host.

The host reads a round's tokens while the next round already runs. It decides about ends and stop
strings one round late; what was generated past an end is never shown, and never counted. The plain
twin is `step.run_round`, which also runs what this cannot: sampling, parameters that look at the
text, drafts on the host, the end of a context.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.contract import DraftState
from draftsmith.drafters.model import ModelState
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.rounds.verdicts import Outcome
from draftsmith.kernels.gpu import plain, verdicts
from draftsmith.kernels.gpu.verdicts import State
from draftsmith.models.follower import Follower
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_pass import MOST_ROWS, PassInputs

__all__ = ["GraphedRounds"]

_MOST_GAMMA = 15
_AHEAD = 3
"""Rounds that a context must have room for: the one to read, the one behind it, and one more."""


class _Buffers(NamedTuple):
    """What the graphs of one batch size share, on the device."""

    state: State
    slots: Int[Tensor, " batch"]
    draft_slots: Int[Tensor, " batch"]


class _Graph(NamedTuple):
    replay: Callable[[], None]
    found: Int[Tensor, "batch twice_rows"]


class _Flight(NamedTuple):
    """A round that runs, or has run, and was not read."""

    ids: tuple[int, ...]
    gamma: int
    found: Int[Tensor, "batch twice_rows"]
    """On the host, pinned."""
    is_there: torch.cuda.Event | None
    """None where there was nothing to wait for."""


class GraphedRounds:
    """Rounds of a target and a draft model that can both be captured, or of the target alone.

    Args:
        target: On a CUDA device.
        draft: On the same; None decodes plainly.
    """

    def __init__(self, target: GpuDecoder, draft: GpuDecoder | None) -> None:
        self._target, self._draft = target, draft
        self._buffers: dict[int, _Buffers] = {}
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self._versions = self._pool_versions()
        self._draft_lock = nullcontext() if draft is None else draft.lock
        self._flight: _Flight | None = None
        self._lengths: list[int] = []
        """Tokens of each sequence once what was read so far is committed."""

    def forget(self) -> None:
        """Drop what runs: the caches that it belongs to are gone."""
        self._flight = None

    @torch.inference_mode()
    def run(
        self, target: Follower, drafter: DraftState | None, samples: Sequence[Sample], gamma: int
    ) -> list[Outcome] | None:
        """The next verdicts on a batch; the round behind them is launched before they are read.

        Args:
            target: Follows the sequences.
            drafter: The draft model's state; None if nothing is drafted.
            samples: The batch.
            gamma: Drafted tokens of each.

        Returns:
            The outcomes; None where only the plain path can tell, which words errors, too.
        """
        draft = drafter.follower if isinstance(drafter, ModelState) else None
        if (
            gamma > _MOST_GAMMA
            or (gamma > 0 and draft is None)
            or not self._can_run(samples, gamma)
        ):
            self._flight = None
            return None
        ids = tuple(sample.id for sample in samples)
        lengths = [len(sample.tokens) for sample in samples]
        with self._target.lock, self._draft_lock, self._target.current:
            flight = self._flight
            is_going = flight is not None and (flight.ids, flight.gamma) == (ids, gamma)
            if flight is None or not is_going or lengths != self._lengths:
                self._settle_caches(target, draft, samples)
                self._begin(target, draft, samples, gamma)
                self._lengths = lengths
                flight = self._launch(target, draft, samples, gamma, ahead=1)
            self._flight = self._launch(target, draft, samples, gamma, ahead=2)
        if flight.is_there is not None:
            flight.is_there.synchronize()
        rows = flight.found[: len(samples)].tolist()
        outcomes = [
            _outcome(place, row, gamma, sample)
            for place, (row, sample) in enumerate(zip(rows, samples, strict=True))
        ]
        found = [outcome for outcome in outcomes if outcome is not None]
        if len(found) < len(outcomes):
            self._flight = None
            return None
        self._lengths = [n + row[-1] + 1 for n, row in zip(lengths, rows, strict=True)]
        for sample, row in zip(samples, rows, strict=True):
            coming = row[: row[-1] + 1]
            target.note_fed(sample, coming, 1)
            if draft is not None:
                # The last drafted token is fed in the next round.
                draft.note_fed(sample, coming, 2)
        return found

    def _can_run(self, samples: Sequence[Sample], gamma: int) -> bool:
        """Whether only best tokens count, and there is room for the rounds ahead."""
        if gamma > _MOST_GAMMA or _bucket(len(samples)) * (gamma + 1) > MOST_ROWS:
            return False
        ahead = _AHEAD * (gamma + 1)
        limit = self._target.config.context_length
        if gamma and self._draft is not None:
            limit = min(limit, self._draft.config.context_length)
        return all(
            _is_greedy(sample) and 2 <= len(sample.tokens) <= limit - ahead for sample in samples
        )

    # --- the caches' side ---------------------------------------------------------------------

    def _settle_caches(
        self, target: Follower, draft: Follower | None, samples: Sequence[Sample]
    ) -> None:
        for sample in samples:
            target.settle(sample)
            if draft is not None:
                draft.settle(sample)

    def _begin(
        self, target: Follower, draft: Follower | None, samples: Sequence[Sample], gamma: int
    ) -> None:
        """Tell the device which sequences run, and where they stand."""
        batch = _bucket(len(samples))
        missing = [0] * (batch - len(samples))
        columns = [
            [len(sample.tokens) for sample in samples],
            [sample.tokens[-1] for sample in samples],
            [sample.tokens[-2] for sample in samples],
            [1 for _ in samples],
            [target.slot(sample) for sample in samples],
            [0 if draft is None else draft.slot(sample) for sample in samples],
        ]
        # Padding stands where nothing is out of bounds, and writes nothing.
        pads = [2, 0, 0, 0, 0, 0]
        table = [
            [*column, *[pad for _ in missing]] for column, pad in zip(columns, pads, strict=True)
        ]
        buffers = self._buffers_of(batch)
        for held, column in zip((*buffers.state, *buffers[1:]), table, strict=True):
            held.copy_(torch.tensor(column, dtype=torch.int32))

    def _launch(
        self,
        target: Follower,
        draft: Follower | None,
        samples: Sequence[Sample],
        gamma: int,
        ahead: int,
    ) -> _Flight:
        """Launch a round; `ahead` counts it and those that run and were not read."""
        ends = [len(sample.tokens) + ahead * (gamma + 1) for sample in samples]
        pages = 0
        for sample, end in zip(samples, ends, strict=True):
            pages = max(pages, target.reserve(sample, end))
            if draft is not None:
                pages = max(pages, draft.reserve(sample, end))
        graph = self._graph(_bucket(len(samples)), gamma, pages)
        graph.replay()
        ids = tuple(sample.id for sample in samples)
        if self._target.device.type != "cuda":
            return _Flight(ids, gamma, graph.found.clone(), None)
        found = torch.empty(graph.found.shape, dtype=torch.int32, pin_memory=True)
        found.copy_(graph.found, non_blocking=True)
        is_there = torch.cuda.Event()
        is_there.record()
        return _Flight(ids, gamma, found, is_there)

    # --- the graphs ---------------------------------------------------------------------------

    def _pool_versions(self) -> tuple[int, int]:
        return self._target.pool.version, 0 if self._draft is None else self._draft.pool.version

    def _buffers_of(self, batch: int) -> _Buffers:
        if batch not in self._buffers:
            table = torch.zeros(6, batch, dtype=torch.int32, device=self._target.device)
            self._buffers[batch] = _Buffers(State(*table[:4]), table[4], table[5])
        return self._buffers[batch]

    def _graph(self, batch: int, gamma: int, pages: int) -> _Graph:
        versions = self._pool_versions()
        if versions != self._versions:
            self._graphs.clear()
            self._versions = versions
        key = batch, gamma, self._target.num_parts(pages)
        if key not in self._graphs:
            self._graphs[key] = self._captured(*key)
        return self._graphs[key]

    def _captured(self, batch: int, gamma: int, parts: int) -> _Graph:
        """Capture a round, after one that nobody lives in has compiled its kernels."""
        device, buffers = self._target.device, self._buffers_of(batch)
        found = torch.zeros(batch, 2 * (gamma + 1), dtype=torch.int32, device=device)
        if device.type != "cuda":
            # Nothing to capture: the kernels' twins, in the same order.
            return _Graph(lambda: self._body(buffers, found, gamma, parts), found)
        kept = [one.clone() for one in buffers.state]
        for one, pad in zip(buffers.state, (2, 0, 0, 0), strict=True):
            one.fill_(pad)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._body(buffers, found, gamma, parts)
        torch.cuda.current_stream(device).wait_stream(stream)
        for one, before in zip(buffers.state, kept, strict=True):
            one.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._body(buffers, found, gamma, parts)
        return _Graph(graph.replay, found)

    def _body(
        self, buffers: _Buffers, found: Int[Tensor, "batch twice_rows"], gamma: int, parts: int
    ) -> None:
        """Launch a round; nothing in it waits for the host."""
        batch, vocab_size = len(found), self._target.config.vocab_size
        kernels = verdicts if self._target.device.type == "cuda" else plain
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
            own_parts = min(parts, self._draft.pool.most_pages)
            logits = self._draft.run(PassInputs(*at, buffers.draft_slots, fed), own_parts)
            assert logits is not None
            bests = kernels.best_parts(logits, vocab_size)
            kernels.take_draft(bests, tokens, following[:, 0], step + 1)
            fed = following
        logits = self._target.run(PassInputs(starts, widths, buffers.slots, tokens), parts)
        assert logits is not None
        bests = kernels.best_parts(logits, vocab_size)
        kernels.settle(bests, tokens, buffers.state, found)


def _is_greedy(sample: Sample) -> bool:
    """Whether nothing but the best token counts, and nobody asks for more than tokens."""
    laws = (sample.law, sample.draft_law)
    is_plain = all(law.is_greedy and law.cuts is not None for law in laws)
    return is_plain and sample.lenience is None and sample.params.logprobs is None


def _outcome(place: int, row: list[int], gamma: int, sample: Sample) -> Outcome | None:
    """A verdict from what the device found; None where no token was allowed."""
    points, drafted, kept = row[: gamma + 1], row[gamma + 1 : -1], row[-1]
    if points[kept] < 0:
        return None
    # The last token of a text is never drafted.
    wanted = max(0, min(gamma, sample.room - 1))
    kept = min(kept, wanted)
    return Outcome(points[: kept + 1], drafted[:wanted], kept, None, None, place, None)


def _bucket(batch: int) -> int:
    return 1 << (batch - 1).bit_length()
