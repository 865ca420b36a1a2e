"""Who learns: a draft along a lesson, in plain torch, whose weights want gradients."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.unroll import unrolled
from draftsmith.train.teacher import Lesson

__all__ = ["Cut", "Drafted", "EaglePupil", "Emphasis", "Pupil"]

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
    share: float = 1.0
    """Of the place's rows, those that these are, where a step cuts them."""
    cut: "Cut | None" = None


class Cut(NamedTuple):
    """Where the logits were cut off from what made them, a product with what does not learn.

    Their gradient is taken as soon as their loss is known, so that of logits as wide as a
    vocabulary a step holds one part at a time.
    """

    stream: Float[Tensor, "rows width"]
    """What made them."""
    leaf: Float[Tensor, "rows width"]
    """The same numbers, which the logits know."""

    def settled(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss with its gradient at the stream, and nothing behind it held."""
        (gradient,) = torch.autograd.grad(loss, self.leaf)
        bound = (self.stream * gradient).sum()
        return loss.detach() + bound - bound.detach()


class Emphasis(NamedTuple):
    """What a place's loss is made of."""

    place: float
    entropy: float = 1.0
    variation: float = 1.0
    """Of the total variation, the share that is refused."""


class Pupil(ABC):
    """A draft in training."""

    is_alike_everywhere: bool = False
    """Whether what it says of a token is the same at every place of a draft: then it is asked at
    place 0 alone."""

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
        steps = unrolled(self._head, lesson.states, lesson.embedded[:, 1:], self._num_places)
        for place, stream in enumerate(steps):
            rows, of_law = lesson.wanted(place)
            if not len(rows):
                break
            drafted = stream.flatten(0, 1).index_select(0, rows)
            yield Drafted(place, self._head.logits(drafted), of_law)
