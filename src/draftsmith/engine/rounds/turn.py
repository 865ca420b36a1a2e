"""One sequence in one round: what it is, its rules, its noise, and its draft so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.constraint import Constraint
from draftsmith.core.laws import History, Law
from draftsmith.core.lenience import ArgmaxLenience
from draftsmith.core.noise import PointMassNoise, RoundNoise
from draftsmith.core.verify import Verifier
from draftsmith.drafters.contract import SequenceView
from draftsmith.engine.control.contract import NO_FORCED, Forced
from draftsmith.kernels.cpu.sampling import NoiseSlot, noise_of

__all__ = ["Turn", "noise_of_turns"]


@dataclass
class Turn:
    """One sequence in one round."""

    view: SequenceView
    law: Law
    draft_law: Law
    """What drafted tokens are drawn from; the target's transform unless the draft has its own."""
    verifier: Verifier
    make_history: Callable[[], History]
    """The committed tokens as tensors, for laws that look at them."""
    make_slot: Callable[[], NoiseSlot]
    """Whose noise, and from where on, for laws that draw; `prefix` moves it along."""
    device: torch.device
    level: int = 0
    """0 checks with the target; 1 and up with a drafter that speculates itself."""
    prefix: list[int] = field(default_factory=list)
    """Drafted tokens of the round above, taken as kept; the end of `view.tokens`."""
    inner_round: int = 0
    """Which round of its level this is."""
    lenience: ArgmaxLenience | None = None
    """How greedy checks are lossy; None is exact."""
    constraint: Constraint | None = None
    """What the text must follow, if it must follow anything; the laws know of it."""
    drafts_forced: bool = True
    """Whether tokens that it forces are drafted, whoever else drafts."""
    room: int = 0
    """Tokens that may still come, for drafts that cost nothing."""
    drawn: list[int] = field(default_factory=list)
    laws: list[Tensor] = field(default_factory=list)
    """The law of each drawn token, `[vocab]`."""
    confidences: list[float] = field(default_factory=list)
    """How sure the drafter was of each token; empty where nobody asks, or it does not tell."""
    forced: Forced = NO_FORCED
    """How many drafted tokens the constraint forces."""
    fault: str = ""
    """How the drafter broke its contract for this sequence, which ends it; the others go on."""

    @property
    def output(self) -> list[int]:
        """The tokens behind the prompt."""
        return list(self.view.tokens[self.view.num_prompt :])

    def forced_after(self, drafted: Sequence[int], most: int) -> list[int]:
        """What the constraint forces behind a draft, if that is to be drafted at all."""
        if self.constraint is None or not self.drafts_forced or most <= 0:
            return []
        return self.constraint.forced([*self.output, *drafted], most)

    @property
    def has_ended(self) -> bool:
        """Whether the draft has come to an end of the text that the constraint knows."""
        return bool(self.constraint and self.drawn and self.drawn[-1] in self.constraint.ends)

    @cached_property
    def history(self) -> History:
        """The committed tokens, made into tensors where a law asks."""
        return self.make_history()

    @cached_property
    def noise(self) -> RoundNoise:
        """The random numbers of this round."""
        if self.law.is_greedy and self.draft_law.is_greedy:
            return PointMassNoise(1, self.device)
        return noise_of_turns([self])

    @property
    def noise_slot(self) -> NoiseSlot:
        """Whose noise, and at which round and position."""
        slot = self.make_slot()
        return slot._replace(position=slot.position + len(self.prefix)) if self.prefix else slot

    def laws_after(
        self, logits: Float[Tensor, "rows vocab"], drafted: Sequence[int]
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        return self.law(logits, self.history, self._tokens(drafted, logits.device))

    def points_after(
        self, logits: Float[Tensor, "rows vocab"], drafted: Sequence[int]
    ) -> list[int]:
        """What greedy checks settle on, `NO_TOKEN` for none; the last row follows all drafts."""
        tokens = self._tokens(drafted, logits.device)
        points = self.law.points(logits, self.history, tokens)
        if self.lenience is not None:
            points = self.lenience.spare(points, logits, self.history, tokens)
        # The sync is the round's: the tokens are wanted here.
        return points.tolist()

    def draft_law_after(
        self, logits: Float[Tensor, "1 vocab"], drafted: Sequence[int]
    ) -> Float[Tensor, "1 vocab"]:
        """The law of the next drafted token, behind others."""
        return self.draft_law(logits, self.history, self._tokens(drafted, logits.device))

    def draft_point_after(self, logits: Float[Tensor, "1 vocab"], drafted: Sequence[int]) -> int:
        """Where a greedy draft's law stands, `NO_TOKEN` for none."""
        tokens = self._tokens(drafted, logits.device)
        return int(self.draft_law.points(logits, self.history, tokens))

    def _tokens(self, drafted: Sequence[int], device: torch.device) -> Int[Tensor, " drafts"]:
        return torch.tensor([*self.prefix, *drafted], dtype=torch.long, device=device)


def noise_of_turns(turns: Sequence[Turn]) -> RoundNoise:
    """The random numbers of turns of one level and inner round, a row for each."""
    first = turns[0]
    slots = [turn.noise_slot for turn in turns]
    return noise_of(slots, first.device, first.level, first.inner_round)
