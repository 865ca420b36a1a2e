"""Planted bugs: each is a mistake that some engine has made, or could. Every one must be caught.

A bug is switched into the engine itself: the verifiers that its rounds look up, the drafters and
the target that it runs.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from draftsmith.audit.planted_models import ForgetfulRollback, RoundedChecks
from draftsmith.audit.subject import Subject
from draftsmith.core.enumeration import Cut, Tokens
from draftsmith.core.noise import RoundNoise, Stream
from draftsmith.core.tree_verify import Judged, TreeCheck, TreeRule
from draftsmith.core.verdict import Verdict, assemble
from draftsmith.core.verify import (
    VERIFIERS,
    BlockVerifier,
    Check,
    RejectionVerifier,
    ThresholdVerifier,
    Verifier,
)
from draftsmith.drafters.contract import DraftContext, Drafter
from draftsmith.drafters.draft import Draft
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel

__all__ = [
    "BUGS",
    "AcceptsOnEquality",
    "AnticipatingDrafter",
    "BlockWithTokenResidual",
    "DrawsLikeliest",
    "DrawsRounded",
    "NoiseUsedTwice",
    "PlantedBug",
    "RowOffByOne",
    "SharedStreams",
    "TreeRowOffByOne",
    "WrongResidual",
    "anticipating_cut",
    "bug_named",
    "plant",
]


class _Wrapped(ThresholdVerifier):
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


class WrongResidual(_Wrapped):
    """After a rejection, draws from the target itself."""

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        """The target's law, whatever was rejected."""
        return check.target_probs[torch.arange(len(num_accepted)), num_accepted]


class AcceptsOnEquality(_Wrapped):
    """`<=` in the place of `<`."""

    def passes(self, uniforms: Tensor, thresholds: Tensor) -> Tensor:
        """A uniform of exactly 0 passes a threshold of 0."""
        return uniforms <= thresholds


class SharedStreams(_Wrapped):
    """The draft's own uniform decides whether the draft is kept."""

    streams: ClassVar[tuple[int, int, int]] = (Stream.DRAFT, Stream.DRAFT, Stream.EMIT)


class RowOffByOne(_Wrapped):
    """Every drafted token is judged by the target's row after its own."""

    def thresholds(self, check: Check) -> Tensor:
        """Those of the next row."""
        return self.inner.thresholds(self._shifted(check))

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        """That of the next row."""
        return self.inner.emitted_law(self._shifted(check), num_accepted)

    @staticmethod
    def _shifted(check: Check) -> Check:
        target = check.target_probs
        return check._replace(target_probs=torch.cat([target[:, 1:], target[:, -1:]], dim=1))


class TreeRowOffByOne(_Wrapped):
    """Judges each node of a tree by the target's law behind it, and not before it."""

    takes_trees: ClassVar[bool] = True

    @property
    def tree_rule(self) -> TreeRule:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inner verifier's, shown other rows."""
        assert self.inner.tree_rule is not None
        return _NextRow(self.inner.tree_rule)


class _NextRow(TreeRule):
    def __init__(self, inner: TreeRule) -> None:
        self.inner = inner

    def judge(self, check: TreeCheck) -> Judged:
        rows = torch.cat([check.target_probs[:, 1:], check.target_probs[:, -1:]], dim=1)
        return self.inner.judge(check._replace(target_probs=rows))

    def end(self, parents: Sequence[int], passed: Tensor) -> Tensor:
        return self.inner.end(parents, passed)


class BlockWithTokenResidual(_Wrapped):
    """Block thresholds, token residual."""

    def __init__(self) -> None:
        super().__init__(BlockVerifier())

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        """The rejection verifier's."""
        return RejectionVerifier().emitted_law(check, num_accepted)


class DrawsLikeliest(_Wrapped):
    """Drafts its likeliest token and reports its soft law."""

    def draw(self, probs: Tensor, noise: RoundNoise, index: int) -> Tensor:
        """The argmax, whatever the noise."""
        return self.inner.draw(
            torch.zeros_like(probs).scatter_(-1, probs.argmax(-1, keepdim=True), 1.0), noise, index
        )


class DrawsRounded(_Wrapped):
    """Draws from its law rounded to bfloat16 and reports the unrounded one."""

    def draw(self, probs: Tensor, noise: RoundNoise, index: int) -> Tensor:
        """As if the draft's softmax had been computed in bfloat16."""
        rounded = probs.bfloat16().to(probs.dtype)
        return self.inner.draw(rounded / rounded.sum(-1, keepdim=True), noise, index)


class NoiseUsedTwice(Verifier):
    """Coupled, but the token after a draft is drawn with the noise of the round's first token."""

    name: ClassVar[str] = "coupled"
    needs_draft_probs: ClassVar[bool] = False

    def draw(self, probs: Tensor, noise: RoundNoise, index: int) -> Tensor:
        """As it should be."""
        return noise.race(index, probs.unsqueeze(1)).squeeze(1)

    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        """The bonus is drawn from the right law with the wrong noise."""
        gamma = check.draft_tokens.shape[1]
        chosen = noise.race(0, check.target_probs)
        agrees = chosen[:, :gamma] == check.draft_tokens
        num_accepted = agrees.long().cumprod(dim=1).sum(dim=1)
        bonus = noise.race(0, check.target_probs[:, -1:])[:, 0]
        emitted = chosen.gather(1, num_accepted.unsqueeze(1)).squeeze(1)
        is_bonus = num_accepted == check.num_drafted
        return assemble(check.draft_tokens, num_accepted, torch.where(is_bonus, bonus, emitted))


def anticipating_cut(draft: Tokens, laws: Tensor) -> int:
    """Checks a drafted token only if it is among the likeliest: it looks at what it cuts."""
    for index, token in enumerate(draft):
        if laws[index, token] < 0.5 * laws[index].max():
            return index
    return len(draft)


class AnticipatingDrafter(Drafter):
    """Hands on another drafter's draft, cut by a look at the drawn tokens."""

    def __init__(self, inner: Drafter, cut: Cut) -> None:
        self.inner = inner
        self.cut = cut
        self.name = inner.name
        self.uses_torch_threads = inner.uses_torch_threads
        self.boundaries, self.longest = inner.boundaries, inner.longest

    def propose(self, context: DraftContext) -> Draft:
        """Fewer tokens than were drawn."""
        draft = self.inner.propose(context)
        if draft.probs is None:
            return draft
        lengths = [
            self.cut(tuple(tokens[:length]), laws)
            for tokens, length, laws in zip(
                draft.tokens.tolist(), draft.num_drafted.tolist(), draft.probs, strict=True
            )
        ]
        return replace(draft, num_drafted=torch.tensor(lengths, device=draft.tokens.device))


@dataclass(frozen=True)
class PlantedBug:
    """A mistake, and the parts of the engine that have it."""

    name: str
    mistake: str
    verifiers: Mapping[str, Verifier] = field(default_factory=dict[str, Verifier])
    """What the engine's verifiers become, by name."""
    cut: Cut | None = None
    """How many drafted tokens the drafters hand on."""
    model: Callable[[LanguageModel], LanguageModel] | None = None
    """What the target becomes."""

    @property
    def part(self) -> str:
        """Where the checks should find it."""
        if self.cut is not None:
            return "draft"
        return next(iter(self.verifiers), "model")


def _everywhere(
    name: str, mistake: str, broken: Callable[[ThresholdVerifier], ThresholdVerifier]
) -> list[PlantedBug]:
    """A mistake that can be made under token and under block verification."""
    return [
        PlantedBug(name, mistake, {"rejection": broken(RejectionVerifier())}),
        PlantedBug(f"block-{name}", f"{mistake} (block)", {"block": broken(BlockVerifier())}),
    ]


BUGS: dict[str, PlantedBug] = {
    bug.name: bug
    for bug in (
        *_everywhere(
            "wrong-residual", "after a rejection, draws from the target itself", WrongResidual
        ),
        *_everywhere(
            "draft-law-not-sampled-from",
            "drafts the likeliest token, reports the soft law",
            DrawsLikeliest,
        ),
        *_everywhere(
            "bf16-draft-law", "draws from the draft's law rounded to bfloat16", DrawsRounded
        ),
        *_everywhere(
            "accepts-on-equality", "u <= threshold in the place of u <", AcceptsOnEquality
        ),
        *_everywhere(
            "shared-noise-streams", "one uniform draws the draft and judges it", SharedStreams
        ),
        *_everywhere("row-off-by-one", "judges a draft by the target's next row", RowOffByOne),
        *_everywhere(
            "tree-row-off-by-one",
            "judges a node of a tree by the target's row behind it",
            TreeRowOffByOne,
        ),
        PlantedBug(
            "block-with-token-residual",
            "block verification's thresholds with the token residual",
            {"block": BlockWithTokenResidual()},
        ),
        PlantedBug(
            "anticipating-cut", "cuts a draft by a look at the tokens it cuts", cut=anticipating_cut
        ),
        PlantedBug(
            "coupled-noise-used-twice",
            "the token after a draft is drawn with the noise of the round's first token",
            {"coupled": NoiseUsedTwice()},
        ),
        PlantedBug(
            "bf16-check",
            "a pass over several rows rounds its logits to bfloat16",
            model=RoundedChecks,
        ),
        PlantedBug(
            "stale-cache",
            "a rollback leaves the first rejected token in the cache",
            model=ForgetfulRollback,
        ),
    )
}
"""Every planted bug by name."""


def bug_named(name: str) -> PlantedBug:
    """Look a bug up.

    Raises:
        InvalidRequestError: If there is none of that name.
    """
    if name not in BUGS:
        raise InvalidRequestError(f"plant must be one of {', '.join(BUGS)}, got {name!r}")
    return BUGS[name]


@contextmanager
def plant(bug: PlantedBug, subject: Subject) -> Generator[Subject]:
    """Run with a bug switched in: every round that starts within looks the broken parts up."""
    correct = {name: VERIFIERS[name] for name in bug.verifiers}
    drafters, itself = dict(subject.drafters), subject.itself
    if bug.cut is not None:
        drafters = {name: AnticipatingDrafter(one, bug.cut) for name, one in drafters.items()}
        itself = None if itself is None else AnticipatingDrafter(itself, bug.cut)
    target = subject.target if bug.model is None else bug.model(subject.target)
    VERIFIERS.update(bug.verifiers)
    try:
        yield replace(subject, target=target, drafters=drafters, itself=itself, cut=bug.cut)
    finally:
        VERIFIERS.update(correct)
