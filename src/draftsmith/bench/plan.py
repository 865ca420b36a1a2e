"""Whether speculation will pay for a target, on this machine, with these prompts."""

from collections.abc import Mapping
from dataclasses import dataclass

from draftsmith.bench.arms import arm_name
from draftsmith.bench.costs import RoundCosts
from draftsmith.bench.predict import Prediction
from draftsmith.bench.speed import Speedup
from draftsmith.core.statistics import Interval

__all__ = ["DraftPlan", "Observed", "Plan", "Shape"]

Shape = tuple[int, int]
"""Gamma, and the number of branches."""
_PAYS = 1.02
"""A smaller gain is not worth a second model."""


@dataclass(frozen=True)
class Observed:
    """What a run came to."""

    speedup: Speedup
    tokens_per_pass: float


@dataclass(frozen=True)
class DraftPlan:
    """What one drafter would bring."""

    name: str
    overlap: float
    """Mean over positions of the sum of min(target law, draft law); the alpha of Leviathan et
    al., corollary 3.6, on text of the target's own."""
    overlap_interval: Interval | None
    proposed: float
    """Share of positions at which it guesses at all."""
    step_s: float
    """Seconds of drafting one token, in a round."""
    cost_ratio: float
    """That over a plain round's time."""
    costs: Mapping[int, RoundCosts]
    """What rounds took, by the number of branches."""
    predictions: tuple[Prediction, ...]
    observed: Mapping[Shape, Observed]
    """What was measured in a run, by gamma and branches."""
    batch_limit: int | None
    """Sequences at once at which it stops paying; None if it pays up to 64."""

    @property
    def best(self) -> Prediction:
        """The shape of draft with the largest predicted speed-up."""
        return max(self.predictions, key=lambda one: one.speedup)

    def ratio(self, one: Prediction) -> float | None:
        """The predicted speed-up over the observed one; None where none was observed."""
        seen = self.observed.get((one.gamma, one.branches))
        return None if seen is None else one.speedup / seen.speedup.median

    def name_of(self, one: Prediction) -> str:
        """Such as `a-head, gamma 4, 2 branches`."""
        return arm_name(self.name, one.gamma, one.branches)

    @property
    def pays(self) -> bool:
        """Whether the gain is more than a trifle, and more than chance."""
        low = self.best.interval.low if self.best.interval else self.best.speedup
        return self.best.speedup >= _PAYS and low > 1


@dataclass(frozen=True)
class Plan:
    """The answer."""

    target: str
    num_texts: int
    num_tokens: int
    costs: RoundCosts
    drafts: tuple[DraftPlan, ...]

    @property
    def best(self) -> DraftPlan | None:
        """The drafter to take; None for plain decoding."""
        paying = [draft for draft in self.drafts if draft.pays]
        return max(paying, key=lambda draft: draft.best.speedup, default=None)

    @property
    def verdict(self) -> str:
        """What to do, in one sentence."""
        best = self.best
        if best is None:
            nearest = max(self.drafts, key=lambda draft: draft.best.speedup)
            return (
                f"Don't speculate: the best that was tried, {nearest.name} with "
                f"{_shape(nearest.best)}, would run at {_times(nearest.best)} plain decoding."
            )
        limit = best.batch_limit
        until = (
            "and it still pays with 64 sequences at once"
            if limit is None
            else f"and it stops paying at {limit} sequences at once"
        )
        return (
            f"Speculate with {best.name} and {_shape(best.best)}: expect "
            f"{_times(best.best)} plain decoding, {until}."
        )


def _shape(one: Prediction) -> str:
    return f"gamma {one.gamma}" + ("" if one.branches == 1 else f", {one.branches} branches")


def _times(prediction: Prediction) -> str:
    found = f"{prediction.speedup:.2f} times"
    if prediction.interval is None:
        return found
    low, high = prediction.interval
    return f"{found} ({low:.2f} to {high:.2f})"
