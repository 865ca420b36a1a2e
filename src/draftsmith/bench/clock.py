"""Where the time of decoding rounds goes."""

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.engine.control.contract import Choice, Controller, Ledger, RoundReport, Sample
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.passed_on import PassedOn

__all__ = ["Clock", "ClockedController", "ClockedModel"]


@dataclass
class Clock:
    """Seconds in rounds that read no prompt."""

    num_rounds: int = 0
    draft_s: float = 0.0
    pass_s: float = 0.0
    """In the target's passes; on an accelerator only until they were started."""
    total_s: float = 0.0
    pending_pass_s: float = 0.0
    """Of the round in hand."""

    def reset(self) -> None:
        """Begin anew, after a warm-up."""
        self.num_rounds, self.draft_s, self.pass_s, self.total_s = 0, 0.0, 0.0, 0.0


class ClockedController(Controller):
    """A controller whose reports are noted on the way.

    Args:
        inner: Who chooses.
        clock: Where the seconds go.
    """

    def __init__(self, inner: Controller, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def choose(self, sequences: Many[Sample]) -> Choice:
        """As the inner controller has it."""
        return self._inner.choose(sequences)

    def observe(self, report: RoundReport) -> None:
        """Note the round's parts, and pass it on."""
        clock = self._clock
        if not report.is_first:
            clock.num_rounds += 1
            clock.draft_s += report.draft_s
            clock.total_s += report.total_s
            clock.pass_s += clock.pending_pass_s
        clock.pending_pass_s = 0.0
        self._inner.observe(report)

    @property
    def ledger(self) -> Ledger | None:
        """The inner controller's."""
        return self._inner.ledger


class ClockedModel(PassedOn):
    """A target whose passes over drafts are timed; a prompt is no round's part.

    Args:
        inner: The model.
        clock: Where the seconds go.
    """

    def __init__(self, inner: LanguageModel, clock: Clock) -> None:
        super().__init__(inner)
        self._clock = clock

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """The model's pass, timed."""
        start = time.perf_counter()
        logits = self.inner.forward(cache, batch)
        self._clock.pending_pass_s += time.perf_counter() - start
        return logits

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Many[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """The model's pass, timed."""
        start = time.perf_counter()
        found = self.inner.forward_with_states(cache, batch, boundaries)
        self._clock.pending_pass_s += time.perf_counter() - start
        return found
