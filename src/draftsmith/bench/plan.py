"""Whether speculation will pay for a target, on this machine, with these prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.arms import PLAIN, Arm, Cell
from draftsmith.bench.costs import Curve, RoundCosts, measure_passes, measure_rounds
from draftsmith.bench.predict import Prediction, batch_limit, predict
from draftsmith.bench.prompts import encode
from draftsmith.bench.resample import bootstrap
from draftsmith.bench.run import Bench
from draftsmith.bench.speed import Speedup, cost_table, speedup
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import Interval, RoundRecord
from draftsmith.drafters import Drafter, ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.replay import Guess, Text, guesses, rounds, rounds_from_guesses
from draftsmith.engine.requests.request import make_request
from draftsmith.workloads import Workload

__all__ = ["DraftPlan", "Plan", "Planner"]

OnStep = Callable[[str], None]
_GAMMAS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_LARGE_PASSES = (1, 2, 4, 8, 16, 32, 64, 128)
_PAYS = 1.02
"""A smaller gain is not worth a second model."""


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
    """Seconds of one drafted token."""
    cost_ratio: float
    """That over a plain round's time."""
    predictions: tuple[Prediction, ...]
    observed: Mapping[int, Speedup]
    """Measured speed-ups, by gamma."""
    batch_limit: int | None
    """Sequences at once at which it stops paying; None if it pays up to 64."""

    @property
    def best(self) -> Prediction:
        """The draft length with the largest predicted speed-up."""
        return max(self.predictions, key=lambda one: one.speedup)

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
                f"Don't speculate: the best that was tried, {nearest.name} with gamma "
                f"{nearest.best.gamma}, would run at {_times(nearest.best)} plain decoding."
            )
        limit = best.batch_limit
        until = (
            "and it still pays with 64 sequences at once"
            if limit is None
            else f"and it stops paying at {limit} sequences at once"
        )
        return (
            f"Speculate with {best.name} and gamma {best.best.gamma}: expect "
            f"{_times(best.best)} plain decoding, {until}."
        )


def _times(prediction: Prediction) -> str:
    found = f"{prediction.speedup:.2f} times"
    if prediction.interval is None:
        return found
    low, high = prediction.interval
    return f"{found} ({low:.2f} to {high:.2f})"


@dataclass
class Planner:
    """Measures and predicts.

    Args:
        engine: The target, loaded.
        drafters: What could guess, by name.
        workload: Prompts like the user's own.
        params: How to sample; the seed fixes the texts.
        max_tokens: Of each text.
        num_observed: Rounds of the check against reality; 0 leaves it out.
    """

    engine: Engine
    drafters: Mapping[str, Drafter]
    workload: Workload
    params: SamplingParams
    max_tokens: int = 64
    num_observed: int = 1

    def num_steps(self) -> int:
        """How often `on_step` is called at most."""
        count = len(self.workload.items)
        num_arms = 3 if self.num_observed else 0
        return count * (1 + len(self.drafters)) + 2 + num_arms * (1 + self.num_observed * count)

    def run(self, on_step: OnStep) -> Plan:
        """Measure everything; `on_step` is told what comes next."""
        texts = self._write_texts(on_step)
        on_step("checks of 1 to 32 rows")
        engine, target = self.engine, self.engine.target
        middle = sorted(texts, key=lambda text: len(text.request.prompt))[len(texts) // 2]
        params = replace(self.params, max_tokens=self.max_tokens)
        costs = measure_rounds(target, engine.tokenizer, middle.request.prompt, params)
        on_step("passes of up to 128 rows")
        large = measure_passes(target, middle.request.prompt, _LARGE_PASSES, 3)
        check = _CheckTimes(costs, large)
        drafts = [
            self._plan(name, drafter, texts, check, on_step)
            for name, drafter in self.drafters.items()
        ]
        if self.num_observed:
            drafts = self._observe(drafts, on_step)
        num_tokens = sum(len(text.output) for text in texts)
        name = target.traits.name
        return Plan(name, len(texts), num_tokens, costs, tuple(drafts))

    def _write_texts(self, on_step: OnStep) -> list[Text]:
        engine = Engine(self.engine.target, self.engine.tokenizer, gamma=0, prefix_caching=False)
        prompts, _ = encode(self.workload, engine.tokenizer)
        texts: list[Text] = []
        for item, prompt in zip(self.workload.items, prompts, strict=True):
            on_step(f"plain text for {item.id}")
            params = replace(self.params, max_tokens=self.max_tokens)
            request = make_request(prompt, params, engine.target.traits, engine.tokenizer)
            (result,) = engine.generate([prompt], params)
            assert params.seed is not None
            texts.append(Text(request, params.seed, result.token_ids))
        return texts

    def _plan(
        self,
        name: str,
        drafter: Drafter,
        texts: Sequence[Text],
        check: "_CheckTimes",
        on_step: OnStep,
    ) -> DraftPlan:
        target = self.engine.target
        found: list[list[Guess]] = []
        for text in texts:
            on_step(f"{name} along a text")
            found.append(guesses(target, drafter, text))
        # The first guess of each text may include reading its prompt.
        step_s = float(np.median([guess.seconds for one in found for guess in one[1:]] or [0.0]))
        is_certain = all(guess.is_certain for one in found for guess in one)

        def draft_s(count: int) -> float:
            return step_s if is_certain else count * step_s

        predictions = [
            predict(self._records(drafter, texts, found, gamma), gamma, draft_s, check)
            for gamma in _GAMMAS
        ]
        overlaps = [[guess.overlap for guess in one] for one in found]
        mean, interval = _mean(overlaps)
        guessed = [guess.token is not None for one in found for guess in one]
        per_batch = _draft_times(drafter, step_s, texts[0].request.prompt)
        return DraftPlan(
            name=name,
            overlap=mean,
            overlap_interval=interval,
            proposed=sum(guessed) / max(1, len(guessed)),
            step_s=step_s,
            cost_ratio=step_s / check(1),
            predictions=tuple(predictions),
            observed={},
            batch_limit=batch_limit(predictions, per_batch, check),
        )

    def _records(
        self,
        drafter: Drafter,
        texts: Sequence[Text],
        found: Sequence[Sequence[Guess]],
        gamma: int,
    ) -> list[list[RoundRecord]]:
        """The rounds of every text with this gamma."""
        if all(guess.is_certain for one in found for guess in one):
            target = self.engine.target
            return [[one for one, _ in rounds(target, drafter, text, gamma)] for text in texts]
        chance = np.random.default_rng(0)
        is_by_text = self.params.is_greedy or self.params.verifier_name == "coupled"
        return [
            rounds_from_guesses(
                [
                    None
                    if guess.token is None
                    else guess.is_right
                    if is_by_text
                    else bool(chance.random() < guess.overlap)
                    for guess in one
                ],
                gamma,
                text.room,
            )
            for one, text in zip(found, texts, strict=True)
        ]

    def _observe(self, drafts: Sequence[DraftPlan], on_step: OnStep) -> list[DraftPlan]:
        """Run the best drafter with its best length and with half of it."""
        first = max(drafts, key=lambda draft: draft.best.speedup)
        lengths = {first.best.gamma, max(1, first.best.gamma // 2)}
        arms = [PLAIN, *(Arm(first.name, gamma) for gamma in sorted(lengths))]
        assert self.params.seed is not None
        bench = Bench(
            self.engine,
            self.drafters,
            arms,
            self.params,
            num_rounds=self.num_observed,
            seed=self.params.seed,
            max_tokens=self.max_tokens,
        )
        steps = [(Cell(self.workload.name, self.params.temperature, 1), self.workload)]
        bench.run(steps, lambda cell, arm, is_warm_up: on_step(f"for comparison: {arm.name}"))
        tracks = bench.cells[0].tracks
        plain = cost_table(tracks[0].batches, "decode")
        seen: dict[str, dict[int, Speedup]] = {}
        for track in tracks[1:]:
            measured = speedup(cost_table(track.batches, "decode"), plain)
            if measured is not None and track.arm.draft is not None:
                seen.setdefault(track.arm.draft, {})[int(track.arm.gamma)] = measured
        return [replace(draft, observed=seen.get(draft.name, {})) for draft in drafts]


class _CheckTimes:
    """Seconds of a round without its drafting, for any number of checked rows."""

    def __init__(self, costs: RoundCosts, large: Curve) -> None:
        self._costs = costs
        self._large = large
        last = costs.check.counts[-1]
        self._last = last
        self._row_s = max(0.0, costs.check.at(last) - costs.passes.at(last)) / last

    def __call__(self, rows: int) -> float:
        if rows <= self._last:
            return self._costs.check.at(rows)
        added = self._large.at(rows) - self._large.at(self._last)
        return self._costs.check.at(self._last) + added + self._row_s * (rows - self._last)


def _draft_times(
    drafter: Drafter, step_s: float, held: Sequence[int]
) -> Callable[[int, int], float]:
    """Seconds of drafting, by (tokens, sequences)."""
    if not isinstance(drafter, ModelDrafter):
        return lambda count, sequences: step_s * sequences
    curve = measure_passes(drafter.model, held, _LARGE_PASSES, 3)
    alone = curve.at(1)
    return lambda count, sequences: count * step_s * curve.at(sequences) / alone


def _mean(texts: Sequence[Sequence[float]]) -> tuple[float, Interval | None]:
    """The mean over all positions, and its interval with texts drawn anew."""
    sums = np.array([(sum(one), len(one)) for one in texts])

    def means(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        total, count = np.moveaxis(sums[draws].sum(axis=1), -1, 0)
        return total / count

    total, count = sums.sum(axis=0)
    return float(total / max(1, count)), bootstrap(len(texts), means)
