"""Planted bugs: each is a mistake that some shipped engine has made. Every one must be caught."""

from typing import ClassVar

import torch
from torch import Tensor

from draftsmith.core.enumeration import RandomWorld, Tokens
from draftsmith.core.noise import Stream
from draftsmith.core.verify import (
    BlockVerifier,
    Check,
    RejectionVerifier,
    ThresholdVerifier,
)


class Wrapped(ThresholdVerifier):
    """A correct verifier, to be broken in one place."""

    name: ClassVar[str] = "wrapped"

    def __init__(self, inner: ThresholdVerifier) -> None:
        self.inner = inner

    def thresholds(self, check: Check) -> Tensor:
        return self.inner.thresholds(check)

    def count(self, passed: Tensor) -> Tensor:
        return self.inner.count(passed)

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        return self.inner.emitted_law(check, num_accepted)


class WrongResidual(Wrapped):
    """After a rejection, draws from the target itself."""

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        return check.target_probs[torch.arange(len(num_accepted)), num_accepted]


class AcceptsOnEquality(Wrapped):
    """`<=` in the place of `<`."""

    def passes(self, uniforms: Tensor, thresholds: Tensor) -> Tensor:
        return uniforms <= thresholds


class SharedStreams(Wrapped):
    """The draft's own uniform decides whether the draft is kept."""

    streams: ClassVar[tuple[int, int, int]] = (Stream.DRAFT, Stream.DRAFT, Stream.EMIT)


class RowOffByOne(Wrapped):
    """Every drafted token is judged by the target's row after its own."""

    def thresholds(self, check: Check) -> Tensor:
        return self.inner.thresholds(self._shifted(check))

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        return self.inner.emitted_law(self._shifted(check), num_accepted)

    @staticmethod
    def _shifted(check: Check) -> Check:
        target = check.target_probs
        return check._replace(target_probs=torch.cat([target[:, 1:], target[:, -1:]], dim=1))


class BlockWithTokenResidual(Wrapped):
    """Block thresholds, token residual."""

    def __init__(self) -> None:
        super().__init__(BlockVerifier())

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        return RejectionVerifier().emitted_law(check, num_accepted)


class ArgmaxDraft(RandomWorld):
    """Drafts its likeliest token and reports its soft law."""

    def drawn_from(self, history: Tokens) -> Tensor:
        law = self.draft(history)
        return torch.zeros_like(law).index_fill_(0, law.argmax(), 1.0)


class Bfloat16Draft(RandomWorld):
    """Draws from its law rounded to bfloat16 and reports the unrounded one."""

    def drawn_from(self, history: Tokens) -> Tensor:
        rounded = self.draft(history).bfloat16().double()
        return rounded / rounded.sum()


def anticipating_cut(draft: Tokens, laws: Tensor) -> int:
    """Checks a drafted token only if its own probability is large: it looks at what it cuts."""
    for index, token in enumerate(draft):
        if laws[index, token] < 0.5:
            return index
    return len(draft)


def honest_cut(draft: Tokens, laws: Tensor) -> int:
    """Stops before a token whose law is flat, whatever token came of it."""
    for index in range(len(draft)):
        if laws[index].max() < 0.5:
            return index
    return len(draft)
