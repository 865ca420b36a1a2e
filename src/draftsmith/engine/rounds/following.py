"""What a draft on the device needs of the host: that it has read what was committed.

In between rounds it follows by itself; a batch that is new, or that it has not followed for a
while, it reads first.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from draftsmith.drafters.contract import DraftState
from draftsmith.drafters.heads.drafter import HeadState
from draftsmith.drafters.heads.gpu_head import GpuHead, GpuHeadRow
from draftsmith.drafters.heads.steps import Span
from draftsmith.drafters.model import ModelState
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.models.follower import Follower

__all__ = ["Following", "following"]


class Following(ABC):
    """The rows of a draft, of one engine's sequences."""

    @abstractmethod
    def warm_up(self, sample: Sample) -> None:
        """Run whatever reading needs once, so that its kernels are compiled."""

    @abstractmethod
    def catch_up(self, target: Follower, samples: Sequence[Sample]) -> None:
        """Read what is committed, and forget what is not.

        Args:
            target: Holds all settled tokens of the same sequences.
            samples: The batch.
        """

    @abstractmethod
    def has_room(self, sample: Sample, num_tokens: int) -> bool:
        """Whether there is memory for so many tokens."""

    @abstractmethod
    def reserve(self, sample: Sample, num_tokens: int) -> int:
        """Make room for so many tokens; the pages that they take."""

    @abstractmethod
    def slot(self, sample: Sample) -> int:
        """Where the device finds the pages of a sequence."""

    @abstractmethod
    def feature(self, sample: Sample) -> Tensor | None:
        """`[1, width]`: what a head goes on from; None of a model."""

    @abstractmethod
    def note_round(self, target: Follower, sample: Sample, coming: Sequence[int]) -> None:
        """Note what it has read in a round that the target has taken part in.

        Args:
            target: Follows the same sequences.
            sample: As it was before the round.
            coming: Tokens that the round commits.
        """


def following(state: DraftState | None) -> Following | None:
    """The rows of a drafter that may follow on the device; None of another, or of none."""
    if isinstance(state, ModelState):
        return _Model(state.follower)
    if isinstance(state, HeadState) and isinstance(state.head, GpuHead):
        return _Head(state, state.head)
    return None


class _Model(Following):
    """A draft model's follower."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def warm_up(self, sample: Sample) -> None:
        scratch = Follower(self._follower.model)
        scratch.settle(sample)
        scratch.release_all_but([])

    def catch_up(self, target: Follower, samples: Sequence[Sample]) -> None:
        del target
        for sample in samples:
            self._follower.settle(sample)

    def has_room(self, sample: Sample, num_tokens: int) -> bool:
        # Whoever admits sequences has made it.
        del sample, num_tokens
        return True

    def reserve(self, sample: Sample, num_tokens: int) -> int:
        return self._follower.reserve(sample, num_tokens)

    def slot(self, sample: Sample) -> int:
        return self._follower.slot(sample)

    def feature(self, sample: Sample) -> None:
        del sample

    def note_round(self, target: Follower, sample: Sample, coming: Sequence[int]) -> None:
        del target
        # The last drafted token is fed in the next round.
        self._follower.note_fed(sample, coming, 2)


class _Head(Following):
    """A head's rows; the target's states travel with the rounds, and past the host."""

    def __init__(self, state: HeadState, head: GpuHead) -> None:
        self._state, self._head = state, head

    def warm_up(self, sample: Sample) -> None:
        head, tokens = self._head, sample.tokens[1:3]
        width = len(head.config.boundaries), head.config.target_hidden_size
        states = torch.zeros(len(tokens), *width, device=head.device)
        head.run([Span(head.open_row(), tokens, 0)], head.feature(states))

    def catch_up(self, target: Follower, samples: Sequence[Sample]) -> None:
        target.recover_states(samples)
        self._state.settle_all(samples, [target.take_states(sample) for sample in samples])

    def has_room(self, sample: Sample, num_tokens: int) -> bool:
        return self._row(sample).has_room(num_tokens)

    def reserve(self, sample: Sample, num_tokens: int) -> int:
        return self._row(sample).reserve(num_tokens)

    def slot(self, sample: Sample) -> int:
        return self._row(sample).slot

    def feature(self, sample: Sample) -> Tensor:
        return self._state.text(sample.id).feature

    def note_round(self, target: Follower, sample: Sample, coming: Sequence[int]) -> None:
        del coming
        # What this round has left, the next one reads.
        num_read = len(sample.tokens) - 1
        self._state.text(sample.id).pass_over(num_read)
        target.pass_over_states(sample, num_read)

    def _row(self, sample: Sample) -> GpuHeadRow:
        row = self._state.text(sample.id).row
        assert isinstance(row, GpuHeadRow)
        return row
