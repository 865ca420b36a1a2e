"""Who learns: a head that drafts along a lesson, in plain torch, whose weights want gradients."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.unroll import unrolled
from draftsmith.train.teacher import Lesson

__all__ = ["Drafted", "EaglePupil", "Emphasis", "Pupil"]

_DECAY = 0.8


class Drafted(NamedTuple):
    """What a head says of the tokens at one place of drafts that the text bears out."""

    place: int
    """Of the token in the draft, from 0."""
    logits: Float[Tensor, "rows draft_vocab"]
    of_law: Int[Tensor, " rows"]
    """Of each the row of `Lesson.final`, batch and rows as one, behind which the target foretells
    the same token."""
    sure: Float[Tensor, " rows"] | None = None
    """Log-odds that it is kept, of a head that says so."""


class Emphasis(NamedTuple):
    """What a place's loss is made of."""

    place: float
    entropy: float = 1.0
    variation: float = 1.0
    """Of the total variation, the share that is refused."""


class Pupil(ABC):
    """A head in training."""

    @property
    @abstractmethod
    def num_places(self) -> int:
        """Tokens of a draft that it practises."""

    @abstractmethod
    def emphasis(self, place: int) -> Emphasis:
        """How much a place of the draft counts."""

    @abstractmethod
    def drafts(self, lesson: Lesson, chance: random.Random | None) -> Iterator[Drafted]:
        """Draft along a batch of texts, where the target's own tokens are foretold.

        Args:
            lesson: The batch.
            chance: Decides where, for a head that cannot be asked everywhere at once; None asks
                everywhere, part by part, which is for trials.

        Yields:
            A place of the draft after the other; parts of a place may come apart.
        """


class EaglePupil(Pupil):
    """Steps from every position (see `unrolled`). Step s weighs 0.8^s (arXiv:2503.01840).

    Args:
        head: Over weights that want gradients.
        num_places: Steps that are unrolled.
    """

    def __init__(self, head: PlainHead, num_places: int) -> None:
        self._head, self._num_places = head, num_places

    @property
    def num_places(self) -> int:
        """Steps that are unrolled."""
        return self._num_places

    def emphasis(self, place: int) -> Emphasis:
        """Less with every step."""
        return Emphasis(_DECAY**place)

    def drafts(self, lesson: Lesson, chance: random.Random | None) -> Iterator[Drafted]:
        """From every position at once."""
        steps = unrolled(self._head, lesson.states, lesson.embedded, self._num_places)
        for place, stream in enumerate(steps):
            rows, of_law = lesson.wanted(place)
            if not len(rows):
                break
            drafted = stream.flatten(0, 1).index_select(0, rows)
            yield Drafted(place, self._head.logits(drafted), of_law)
