"""The caches of an engine's models: opened when wanted, bounded, and kept for what others share."""

from collections.abc import Callable, Sequence

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.drafters.contract import Drafter, DraftState, open_state
from draftsmith.engine.control.contract import Controller
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.room import CacheStatistics, Room
from draftsmith.models.contract import BoundedCache, CacheSettings, LanguageModel
from draftsmith.models.follower import Follower

__all__ = ["Caches"]

_AHEAD = 2
"""Rounds that graphs have room for beyond what is read: the one that runs, and one behind it."""


class Caches:
    """The target's follower and the drafter's state, and who has rows in them.

    Args:
        target: The model whose law is sampled.
        draft: What guesses; None decodes plainly.
        settings: What the cache of each model may hold.
        is_graphed: Whether rounds are launched before the ones ahead of them are read.
    """

    def __init__(
        self,
        target: LanguageModel,
        draft: Drafter | None,
        settings: CacheSettings,
        *,
        is_graphed: bool,
    ) -> None:
        self._model = target
        self._draft = draft
        self._is_graphed = is_graphed
        self._room = Room(settings)
        self._target: Follower | None = None
        self._state: DraftState | None = None
        self._gauge = _gauge(target, settings)

    @property
    def target(self) -> Follower:
        """The target's follower."""
        if self._target is None:
            self._target = Follower(self._model)
            self._target.bound(self._room.settings)
            if self._draft is not None and self._draft.boundaries:
                self._target.hand_out(self._draft.boundaries)
        return self._target

    @property
    def draft_state(self) -> DraftState | None:
        """What the drafter keeps; None without one."""
        if self._state is None and self._draft is not None:
            self._state = open_state(self._draft)
            for follower in self._state.followers:
                follower.bound(self._room.settings)
        return self._state

    @property
    def open_draft_state(self) -> DraftState | None:
        """What the drafter keeps, if it was ever asked."""
        return self._state

    def release(self, sequence: int) -> None:
        """Close the rows of a sequence, by its id."""
        self._room.is_full = False
        if self._target is not None:
            self._target.forget(sequence)
        if self._state is not None:
            self._state.release(sequence)

    def rest(self) -> None:
        """Without sequences, nothing stays but what is kept of their beginnings."""
        self._room.is_full = False
        if self._target is not None and not _keeps(self._target):
            self._target = None
        if self._state is not None and not any(map(_keeps, self._state.followers)):
            self._state = None

    def close(self) -> None:
        """Let go of everything; nobody knows what the rows hold."""
        self._room.is_full = False
        self._target = self._state = None

    def empty(self) -> None:
        """Give back what the caches hold: whoever keeps an error keeps its frames, and them."""
        for follower in self._open:
            follower.discard()
        if self._state is not None:
            self._state.discard()

    def forget_kept(self) -> None:
        """Let go of what is kept of sequences that have ended."""
        followers = [self.target, *(self.draft_state.followers if self.draft_state else ())]
        for follower in followers:
            if follower.cache is not None:
                follower.cache.forget_kept()

    def statistics(self) -> CacheStatistics:
        """What the target's cache holds now, and what became of it so far."""
        cache = self._target.cache if self._target else None
        held, kept = (cache.num_held, cache.num_kept) if cache else (0, 0)
        room = self._room
        counts = room.num_prompt_tokens, room.num_recalled, room.num_preemptions
        return CacheStatistics(room.settings.num_tokens, held, kept, *counts)

    def most_tokens(self, controller: Controller) -> int | None:
        """Tokens of one sequence that fits when it is alone; None where nobody knows.

        Any thread may ask.
        """
        most = None if self._gauge is None else self._gauge.most_tokens
        if most is None:
            return None
        ahead = _AHEAD * (self._most_drafted(controller) + 1) if self._is_graphed else 0
        return max(0, most - ahead)

    def count(self, sample: Sample) -> None:
        """Note how much of a sequence was recalled, when it reads for the first time."""
        self._room.count(sample, self.target)

    @property
    def num_preemptions(self) -> int:
        """How often a sequence had to let go of its rows."""
        return self._room.num_preemptions

    @property
    def may_be_full(self) -> bool:
        """Whether there may be no memory for all."""
        cache = self.target.cache
        return cache is not None and cache.may_be_full

    def admission(self, live: Sequence[Sample], controller: Controller) -> Callable[[Sample], bool]:
        """Make room for the next round; who may read beside it.

        Args:
            live: All sequences, in the order in which they came.
            controller: How much is drafted at most.
        """
        lengths = {sample.id: self._longest(sample, controller) for sample in live}
        if any(gamma and is_sure for gamma, is_sure in lengths.values()):
            _ = self.draft_state

        def wanted(sample: Sample, follower: Follower) -> int:
            gamma, is_sure = lengths[sample.id]
            is_drafted = gamma > 0 and is_sure and (sample.room > 1 or self._is_graphed)
            if follower is not self._target and not is_drafted:
                return 0
            return self._wanted(sample, follower, gamma)

        followers = self._open
        self._room.keep(live, followers, wanted)
        return lambda sample: self._room.admits(sample, live, followers, wanted)

    def _wanted(self, sample: Sample, follower: Follower, gamma: int) -> int:
        """Tokens that a model holds of a sequence in the round to come, at most."""
        length = len(sample.tokens)
        # Graphs do not know where a text ends.
        ahead = _AHEAD * (gamma + 1) if self._is_graphed else min(gamma, sample.room - 1)
        context = follower.model.traits.context_length
        if context is None:
            return length + ahead
        # What is too long for a draft model has no draft.
        return 0 if length > context else min(length + ahead, context)

    def _longest(self, sample: Sample, controller: Controller) -> tuple[int, bool]:
        """The longest draft of a round, and whether its model's rows are wanted in any case.

        A round that is settled beforehand would be another without them, and graphs find no rows by
        themselves.
        """
        own = sample.own_draft
        gamma, is_sure = self._most_drafted(controller), self._is_graphed
        if own is not None and own.gamma is not None:
            gamma, is_sure = own.gamma, True
        if sample.constraint is not None:
            # What a grammar forces is drafted before and behind what anybody guesses.
            gamma += MAX_GAMMA
        has_own_drafter = own is not None and own.drafter is not None
        return gamma, (is_sure or isinstance(controller, FixedGamma)) and not has_own_drafter

    def _most_drafted(self, controller: Controller) -> int:
        """Tokens of a round's draft, at most, where a sequence asks for nothing else."""
        return controller.gamma if isinstance(controller, FixedGamma) else MAX_GAMMA

    @property
    def _open(self) -> list[Follower]:
        """Of all models, the target's first, as far as they are open."""
        drafts = self._state.followers if self._state else ()
        return [*([self._target] if self._target else []), *drafts]


def _keeps(follower: Follower) -> bool:
    return follower.cache is not None and follower.cache.num_kept > 0


def _gauge(target: LanguageModel, settings: CacheSettings) -> BoundedCache | None:
    """An empty cache that tells how much there is room for; None where there is no bound."""
    if settings.num_tokens is None and target.device.type != "cuda":
        return None
    cache = target.open_cache()
    if not isinstance(cache, BoundedCache):
        return None
    cache.settings = settings
    return cache
