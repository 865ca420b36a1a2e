"""Rounds on a GPU, each one CUDA graph; the next is launched before the last is read.

The host reads a round's tokens while the next round already runs. It decides about ends and stop
strings one round late; what was generated past an end is never shown, and never counted. The plain
twin is `step.run_round`, which also runs what this cannot: parameters that look at the text,
verifiers other than the coupled one, drafts on the host, the end of a context.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.core.verify import CoupledVerifier
from draftsmith.drafters.contract import DraftState
from draftsmith.drafters.heads.gpu_head import GpuHead
from draftsmith.engine import clock
from draftsmith.engine.control.contract import Choice
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.rounds.buffers import MOST_GAMMA, Begin, bucket
from draftsmith.engine.rounds.following import Following, following
from draftsmith.engine.rounds.graphs import round_graphs
from draftsmith.engine.rounds.outcomes import Outcome
from draftsmith.models.follower import Follower
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_pass import MOST_ROWS
from draftsmith.parallel.orders import make_beside

__all__ = ["Flown", "GraphedRounds"]

_GAMMAS = (0, 1, 2, 3, 4, 6, 8, 11, MOST_GAMMA)
"""Draft lengths that graphs are captured for where nobody asks for another."""
_AGREED = 64
"""Rounds from one comparison of the ranks to the next."""
_MOST_STATES = 8192
"""Tokens whose residual streams are kept while nobody drafts."""
_AHEAD = 3
"""Rounds that a context must have room for: the one to read, the one behind it, and one more."""


class Flown(NamedTuple):
    """A round that was read."""

    outcomes: list[Outcome]
    choice: Choice
    """What it drafted."""
    draft_share: float
    """The part of its time that drafting took."""
    caught_up_s: float
    """Time that went to reading before it, where none was under way."""
    captured_s: float
    """Time that went to capturing, once for every kind of round."""


class _Flight(NamedTuple):
    """A round that runs, or has run, and was not read."""

    ids: tuple[int, ...]
    gamma: int
    choice: Choice
    draft_share: float
    found: Int[Tensor, "batch twice_rows"]
    """On the host, pinned."""
    is_there: torch.cuda.Event | None
    """None where there was nothing to wait for."""


class GraphedRounds:
    """Rounds of a target and a draft that can both be captured.

    Args:
        target: On a CUDA device.
        draft: A model on the same, or a head of the target's; None is none.
        ngrams: Prompt lookup's shortest and longest match; None is none.
    """

    def __init__(
        self,
        target: GpuDecoder,
        draft: GpuDecoder | GpuHead | None = None,
        ngrams: tuple[int, int] | None = None,
    ) -> None:
        self._target, self._draft = target, draft
        runner = draft.runner if isinstance(draft, GpuDecoder) else draft
        self._runners = [one.runner for one in (target, draft) if isinstance(one, GpuDecoder)]
        self._graphs = make_beside(target.runner, round_graphs, target.runner, runner, ngrams)
        # In one order for all: another engine may have this draft as its target, and the target
        # as its draft.
        locks = target.lock, nullcontext() if draft is None else draft.lock
        self._locks = sorted(locks, key=id)
        self._flight: _Flight | None = None
        self._ids: tuple[int, ...] = ()
        self._lengths: list[int] = []
        """The batch that the device knows, and tokens of each once what was read is committed."""
        self._gammas: set[int] = set()
        """Draft lengths that were chosen so far."""
        self._before = 0
        """Drafted tokens of the round that was launched last; 0 if it was another batch's."""
        self._draft_follows = False
        """Whether a draft model or a head has read all of it."""
        self._is_draft_warm = False
        self._caught_up_s = self._captured_s = 0.0
        """In this call."""
        self._num_read = 0

    def forget(self) -> None:
        """Drop what runs: the caches that it belongs to are gone."""
        self._flight, self._ids = None, ()

    @torch.inference_mode()
    def run(
        self,
        target: Follower,
        drafter: DraftState | None,
        samples: Sequence[Sample],
        choice: Choice,
        gamma: int | None = None,
    ) -> Flown | None:
        """The next verdicts on a batch; the round behind them is launched before they are read.

        Args:
            target: Follows the sequences.
            drafter: A draft model's state, or a head's; None if nothing was ever drafted.
            samples: The batch.
            choice: How much the round that is launched now drafts: the longest draft is
                everybody's. Where none is under way, the round that is read is of this choice too.
            gamma: A draft length that stays as it is, also near the end of a text.

        Returns:
            The round; None where only the plain path can tell, which words errors, too.
        """
        draft = following(drafter)
        gamma = self._length(samples, choice) if gamma is None else gamma
        is_model = self._draft is not None
        is_missing = gamma > 0 and is_model and not self._has_room(draft, samples, gamma)
        if is_missing or not self._can_run(samples, gamma):
            self.forget()
            return None
        ids = tuple(sample.id for sample in samples)
        lengths = [len(sample.tokens) for sample in samples]
        self._caught_up_s = self._captured_s = 0.0
        with self._locks[0], self._locks[1], self._target.current:
            flight, is_current = self._flight, (ids, lengths) == (self._ids, self._lengths)
            has_followed = is_current and self._draft_follows
            has_followed = has_followed and (flight is None or flight.gamma > 0)
            follows = gamma == 0 or not is_model or has_followed
            if flight is None or not is_current:
                if not is_current or not follows:
                    self._begin(target, draft if gamma else None, samples)
                    self._ids, self._lengths, self._before = ids, lengths, 0
                flight = self._launch(target, draft, samples, choice, gamma, behind=0)
            self._flight = None
            self._draft_follows = is_model and flight.gamma > 0
            # A model that lacks something reads it first: how much is known when this is read. And
            # what it then drafts is not known to be worth another round of the same choice. Nor is
            # there a use for another where this one may be the last.
            may_end = all(sample.room <= flight.gamma + 1 for sample in samples)
            if follows and not may_end:
                behind = flight.gamma + 1
                self._flight = self._launch(target, draft, samples, choice, gamma, behind)
        if flight.is_there is not None:
            flight.is_there.synchronize()
        self._check_ranks()
        followed = draft if is_model and flight.gamma else None
        return self._read(flight, target, followed, samples)

    def _check_ranks(self) -> None:
        """Make sure that all ranks are there, and every so many rounds that they agree."""
        told = self._graphs.told
        if told is None:
            return
        told.orders.check()
        self._num_read += 1
        if self._num_read % _AGREED:
            return
        first, *others = told.orders.ask(self._graphs, "standing")
        for rank, other in enumerate(others, start=1):
            if other != first:
                # Nobody may run on with ranks that differ.
                told.orders.failures.fail(f"rank {rank} has come to other tokens than rank 0")
                told.orders.check()

    def _read(
        self, flight: _Flight, target: Follower, draft: Following | None, samples: Sequence[Sample]
    ) -> Flown | None:
        rows = flight.found[: len(samples)].tolist()
        outcomes = [
            _outcome(place, row, flight.gamma, sample)
            for place, (row, sample) in enumerate(zip(rows, samples, strict=True))
        ]
        found = [outcome for outcome in outcomes if outcome is not None]
        if len(found) < len(outcomes):
            self.forget()
            return None
        pairs = zip(self._lengths, rows, strict=True)
        self._lengths = [length + row[-1] + 1 for length, row in pairs]
        for sample, row in zip(samples, rows, strict=True):
            coming = row[: row[-1] + 1]
            target.note_fed(sample, coming, 1)
            if draft is not None:
                draft.note_round(target, sample, coming)
        times = flight.draft_share, self._caught_up_s, self._captured_s
        return Flown(found, flight.choice, *times)

    def _length(self, samples: Sequence[Sample], choice: Choice) -> int:
        """The draft length of a choice, one of few."""
        longest = max(choice.gammas)
        if longest and longest == max(sample.room for sample in samples) - 1:
            # Only the end is near: no graph of its own for that.
            used = [one for one in self._gammas if one >= longest]
            if used:
                return min(used)
        return max(one for one in _GAMMAS if one <= longest)

    def _can_run(self, samples: Sequence[Sample], gamma: int) -> bool:
        """Whether the device can choose every token, and there is room for the rounds ahead."""
        if gamma > MOST_GAMMA or bucket(len(samples)) * (gamma + 1) > MOST_ROWS:
            return False
        longest = max(gamma, 0 if self._flight is None else self._flight.gamma)
        ahead = _AHEAD * (longest + 1)
        limit = self._target.config.context_length
        if longest and self._draft is not None:
            limit = min(limit, self._draft.context_length)
        return all(
            _is_chosen_alone(sample) and 2 <= len(sample.tokens) <= limit - ahead
            for sample in samples
        )

    def _has_room(self, draft: Following | None, samples: Sequence[Sample], gamma: int) -> bool:
        """Whether a draft has memory for the rounds that are launched next."""
        if draft is None:
            return False
        longest = max(gamma, 0 if self._flight is None else self._flight.gamma)
        ahead = _AHEAD * (longest + 1)
        return all(draft.has_room(sample, len(sample.tokens) + ahead) for sample in samples)

    def _begin(self, target: Follower, draft: Following | None, samples: Sequence[Sample]) -> None:
        """Bring the caches up to the settled tokens, and tell the device where they stand."""
        for sample in samples:
            target.settle(sample)
        if draft is None:
            # Nobody reads them now, and they lie in the device's memory.
            target.limit_states(_MOST_STATES)
        else:
            self._catch_up(target, draft, samples)
        sequences: list[Begin] = []
        for sample in samples:
            cuts, draft_cuts = sample.law.cuts, sample.draft_law.cuts
            assert cuts is not None
            assert draft_cuts is not None
            draft_slot = 0 if draft is None else draft.slot(sample)
            place = sample.tokens, target.slot(sample), draft_slot
            feature = None if draft is None else draft.feature(sample)
            sequences.append(Begin(*place, sample.noise_slot(), cuts, draft_cuts, feature))
        self._graphs.begin(sequences)

    def _catch_up(self, target: Follower, draft: Following, samples: Sequence[Sample]) -> None:
        """Let a draft read what it lacks; the time of it is its own, and nobody else's."""
        start = self._now()
        if not self._is_draft_warm:
            # The first reading of all compiles kernels, once for every text to come.
            draft.warm_up(samples[0])
            self._is_draft_warm = True
        begun, captured_s = self._now(), self._captured_so_far
        draft.catch_up(target, samples)
        captured_s = self._captured_so_far - captured_s
        self._captured_s += begun - start + captured_s
        self._caught_up_s += self._now() - begun - captured_s

    @property
    def _captured_so_far(self) -> float:
        """Time that went to capturing passes of their own, which reading runs."""
        return sum(one.captured_s for one in self._runners)

    def _now(self) -> float:
        """The time when the device has done what it was given so far."""
        if self._target.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return clock.perf_counter()

    def _launch(
        self,
        target: Follower,
        draft: Following | None,
        samples: Sequence[Sample],
        choice: Choice,
        gamma: int,
        behind: int,
    ) -> _Flight:
        """Launch a round; the one before it, if it was not read, adds `behind` tokens or fewer."""
        pages = 0
        for sample in samples:
            end = len(sample.tokens) + behind + gamma + 1
            pages = max(pages, target.reserve(sample, end))
            if draft is not None and gamma:
                pages = max(pages, draft.reserve(sample, end))
        is_sampled = not all(s.law.is_greedy and s.draft_law.is_greedy for s in samples)
        batch, before = bucket(len(samples)), self._before
        kind = self._graphs.kind(batch, gamma, pages, is_sampled=is_sampled, before=before)
        if not self._graphs.has(kind):
            # What runs now is waited for first: its time is its own.
            start = self._now()
            self._graphs.capture(kind)
            self._captured_s += self._now() - start
        share = self._graphs.draft_share(kind)
        there = self._graphs.replay(kind)
        self._before = gamma
        ids = tuple(sample.id for sample in samples)
        if gamma:
            self._gammas.add(gamma)
            choice = Choice([gamma] * len(samples))
        if self._target.device.type != "cuda":
            return _Flight(ids, gamma, choice, share, there.clone(), None)
        found = torch.empty(there.shape, dtype=torch.int32, pin_memory=True)
        found.copy_(there, non_blocking=True)
        is_there = torch.cuda.Event()
        is_there.record()
        return _Flight(ids, gamma, choice, share, found, is_there)


def _is_chosen_alone(sample: Sample) -> bool:
    """Whether logits, seed and position alone choose its tokens, and nobody asks for more."""
    laws = (sample.law, sample.draft_law)
    if any(law.cuts is None for law in laws) or sample.lenience is not None:
        return False
    is_greedy = all(law.is_greedy for law in laws)
    has_rule = is_greedy or isinstance(sample.verifier, CoupledVerifier)
    return has_rule and sample.params.logprobs is None


def _outcome(place: int, row: list[int], gamma: int, sample: Sample) -> Outcome | None:
    """A verdict from what the device found; None where no token was allowed."""
    points, drafted, kept = row[: gamma + 1], row[gamma + 1 : -1], row[-1]
    if points[kept] < 0:
        return None
    # The last token of a text is never drafted.
    wanted = max(0, min(gamma - drafted.count(-1), sample.room - 1))
    kept = min(kept, wanted)
    return Outcome(points[: kept + 1], drafted[:wanted], kept, None, None, place, None)
