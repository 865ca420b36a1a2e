"""Figure 1 of Chen et al. (arXiv:2302.01318), measured on a pair of models."""

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from cyclopts import Group, Parameter

from draftsmith.cli.messages import warn
from draftsmith.cli.options import NumPrompts, Real, Seed, Temperature, VerifierName, Whole
from draftsmith.cli.progress import working
from draftsmith.cli.runtime import ModelOptions
from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.params import SamplingParams
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.request import Prompt
    from draftsmith.papers.comparison import Item
    from draftsmith.papers.loops import Panel, TextTiming
    from draftsmith.workloads import Workload

__all__ = ["RUN", "LoopOptions", "Measured"]

RUN = Group("What is run", sort_key=1)
_DEFAULT_PROMPTS = 8


class Measured(NamedTuple):
    """What came of the measurement."""

    item: "Item"
    points: "list[Panel]"
    is_whole: bool
    """Whether it ran to its end."""


@Parameter(name="*", group=RUN)
@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What is measured.

    Parameters
    ----------
    num_prompts
        How many of the workload, 8 by default; each is run at every gamma.
    workload
        chat, edit, summarise, default (of all three), humaneval, or a JSONL file.
    gamma_max
        Measures gamma 0 to this; the paper has 7.
    temperature
        Of the measurement; the paper's HumanEval has 0.8.
    top_p
        Of the measurement; the paper's HumanEval has 0.95.
    seed
        Fixes the texts; with --verifier coupled they are the same for every gamma.
    verifier
        How drafts are checked; rejection is the paper's rule.
    """

    num_prompts: NumPrompts | None = None
    workload: str = "default"
    gamma_max: Whole = 7
    temperature: Temperature = 0.8
    top_p: Real = 0.95
    seed: Seed | None = None
    verifier: VerifierName = "rejection"

    def check(self, models: ModelOptions) -> "Workload":
        """The prompts, once everything else is known to be in order.

        Raises:
            InvalidRequestError: If an option is out of range.
        """
        from draftsmith.workloads import load_workload

        self._params()
        if not 1 <= self.gamma_max <= MAX_GAMMA:
            raise InvalidRequestError(
                f"gamma_max must be between 1 and {MAX_GAMMA}, got {self.gamma_max}"
            )
        if models.gamma is not None:
            raise InvalidRequestError(
                f"every gamma to --gamma-max is run, got --gamma {models.gamma}: drop it"
            )
        if models.branches is not None:
            raise InvalidRequestError(
                f"the paper's loops draft chains, got --branches {models.branches}: drop it"
            )
        if models.draft == "none":
            raise InvalidRequestError("--draft none: the loops are a draft's: give one")
        found = load_workload(self.workload)
        count = _DEFAULT_PROMPTS if self.num_prompts is None else self.num_prompts
        if not 1 <= count <= len(found.items):
            raise InvalidRequestError(
                f"num_prompts must be between 1 and {len(found.items)} (all of {found.name}), "
                f"got {count}"
            )
        return found.first(count)

    def _params(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            verifier=self.verifier,
        )

    def measure(self, models: ModelOptions) -> Measured:
        """Load the models, time every prompt at every gamma, and sum up.

        Raises:
            InvalidRequestError: If an option is out of range, or nothing was timed to its end.
        """
        from draftsmith.papers.loops import measured, panels

        params, workload = self._params(), self.check(models)
        count = len(workload.items)
        models = replace(models, gamma=self.gamma_max)
        engine = models.load()
        timings = self._timings(engine, _readable(workload, engine), params)
        points = panels(timings)
        what = (
            f"{models.target} drafted by {models.drafted_by}, workload {workload.name}, "
            f"temperature {self.temperature:g}, top-p {self.top_p:g}, {self.verifier} verifier"
        )
        is_whole = len(timings) == count * (self.gamma_max + 1)
        return Measured(measured(points, what), points, is_whole)

    def _timings(
        self, engine: "Engine", prompts: "list[Prompt]", params: SamplingParams
    ) -> "list[TextTiming]":
        """Every timing; an interruption keeps those that are there."""
        from draftsmith.papers.loops import time_texts

        gammas = range(self.gamma_max + 1)
        timings: list[TextTiming] = []
        total = len(prompts) * len(gammas)
        with working("measuring", total, "texts") as work, contextlib.suppress(KeyboardInterrupt):
            for timing in time_texts(engine, prompts, gammas, params):
                timings.append(timing)
                work.update(done=len(timings))
        if len(timings) < total:
            warn(f"interrupted: {len(timings)} of {total} texts were timed")
        return timings


def _readable(workload: "Workload", engine: "Engine") -> "list[Prompt]":
    """Conversations as text where the model has no chat template."""
    from draftsmith.workloads.workload import as_text

    has_template = engine.tokenizer is not None and engine.tokenizer.has_chat_template
    return [item.prompt if has_template else as_text(item.prompt) for item in workload.items]
