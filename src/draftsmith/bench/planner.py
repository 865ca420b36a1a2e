"""Measures what drafts would bring, and holds the prediction against a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.arms import PLAIN, Arm, Cell
from draftsmith.bench.costs import Curve, RoundCosts, measure_passes, measure_rounds
from draftsmith.bench.plan import DraftPlan, Observed, Plan, Shape
from draftsmith.bench.predict import DraftTime, Prediction, batch_limit, predict
from draftsmith.bench.prompts import encode
from draftsmith.bench.resample import bootstrap
from draftsmith.bench.run import Bench, Track
from draftsmith.bench.speed import cost_table, speedup
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import Interval, SpeculationStatistics
from draftsmith.drafters import Drafter, FreeDrafter, ModelDrafter
from draftsmith.drafters.branching import branching
from draftsmith.drafters.contract import open_state
from draftsmith.drafters.lengths import check_fits, fits
from draftsmith.engine.engine import Engine
from draftsmith.engine.replay import (
    Guess,
    Replayed,
    Text,
    Told,
    guesses,
    read,
    rounds,
    rounds_by_law,
    rounds_from_guesses,
)
from draftsmith.engine.requests.request import make_request
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.workloads import Workload

__all__ = ["Planner", "check_foretold"]

OnStep = Callable[[str], None]
_GAMMAS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_FEW_GAMMAS = (2, 4, 8, 16)
_REPEATS, _TIMED_ROUNDS = 7, 120
"""Rounds of one length that are timed at least, and about how many of all lengths."""
_LARGE_PASSES = (1, 2, 4, 8, 16, 32, 64, 128)


def check_foretold(params: SamplingParams, branches: Sequence[int]) -> None:
    """Refuse trees of tokens that are drawn for `rejection` and `block`.

    Which of them is kept depends on the target's laws behind every branch, of which a text shows
    one.

    Raises:
        InvalidRequestError: With the remedy.
    """
    most = max(branches)
    if most > 1 and not _is_by_text(params):
        raise InvalidRequestError(
            f"branches={most} is foretold at temperature 0 or with the verifier coupled, got "
            f"{params.verifier_name}: choose coupled, or measure with bench"
        )


@dataclass
class Planner:
    """Measures and predicts.

    Args:
        engine: The target, loaded.
        drafters: What could guess, by name; those that grow trees with as many branches as are
            asked for, or more.
        workload: Prompts like the user's own.
        params: How to sample; the seed fixes the texts.
        max_tokens: Of each text.
        num_observed: Rounds of the check against reality; 0 leaves it out.
        gammas: Draft lengths; None tries ten of them, and four of a drafter that learns.
        branches: Guesses for a position, of drafters that grow trees; the others draft chains.
    """

    engine: Engine
    drafters: Mapping[str, Drafter]
    workload: Workload
    params: SamplingParams
    max_tokens: int = 64
    num_observed: int = 1
    gammas: Sequence[int] | None = None
    branches: Sequence[int] = (1,)

    def num_steps(self) -> int:
        """How often `on_step` is called at most."""
        count = len(self.workload.items)
        num_shapes = sum(len(self._branches(drafter)) for drafter in self.drafters.values())
        num_arms = 1 + (2 if self.gammas is None else num_shapes * len(self.gammas))
        num_arms = num_arms if self.num_observed else 0
        steps = count + 2 + len(self.drafters) + 2 * num_shapes
        return steps + num_arms * (1 + self.num_observed * count)

    def run(self, on_step: OnStep) -> Plan:
        """Measure everything; `on_step` is told what comes next.

        Raises:
            InvalidRequestError: As `check_foretold`.
        """
        check_foretold(self.params, self.branches)
        for drafter in self.drafters.values():
            for branches in self._branches(drafter):
                self._gammas(branching(drafter, branches))
        texts = self._write_texts(on_step)
        on_step("checks of 1 to 32 rows")
        engine, target = self.engine, self.engine.target
        middle = sorted(texts, key=lambda text: len(text.request.prompt))[len(texts) // 2]
        prompt = middle.request.prompt
        costs = measure_rounds(target, engine.tokenizer, prompt, self._params)
        on_step("passes of up to 128 rows")
        large = measure_passes(target, prompt, _LARGE_PASSES, 3)
        drafts = [
            self._plan(name, drafter, texts, prompt, large, on_step)
            for name, drafter in self.drafters.items()
        ]
        if self.num_observed:
            drafts = self._observe(drafts, on_step)
        num_tokens = sum(len(text.output) for text in texts)
        name = target.traits.name
        return Plan(name, len(texts), num_tokens, costs, tuple(drafts))

    @property
    def _params(self) -> SamplingParams:
        return replace(self.params, max_tokens=self.max_tokens)

    def _branches(self, drafter: Drafter) -> list[int]:
        """Those that a drafter is tried with."""
        return list(dict.fromkeys(self.branches)) if drafter.branches > 1 else [1]

    def _write_texts(self, on_step: OnStep) -> list[Text]:
        engine = Engine(self.engine.target, self.engine.tokenizer, gamma=0, prefix_caching=False)
        prompts, _ = encode(self.workload, engine.tokenizer)
        texts: list[Text] = []
        for item, prompt in zip(self.workload.items, prompts, strict=True):
            on_step(f"plain text for {item.id}")
            request = make_request(prompt, self._params, engine.target.traits, engine.tokenizer)
            (result,) = engine.generate([prompt], self._params)
            assert self.params.seed is not None
            texts.append(Text(request, self.params.seed, result.token_ids))
        return texts

    def _plan(
        self,
        name: str,
        drafter: Drafter,
        texts: Sequence[Text],
        prompt: Sequence[int],
        large: Curve,
        on_step: OnStep,
    ) -> DraftPlan:
        target = self.engine.target
        told = [read(target, text, drafter.boundaries) for text in texts]
        on_step(f"{name} along the texts")
        found = [guesses(target, drafter, one) for one in told]
        costs: dict[int, RoundCosts] = {}
        predictions: list[Prediction] = []
        for branches in self._branches(drafter):
            on_step(f"rounds of {name}" + (f", {branches} branches" if branches > 1 else ""))
            grown = branching(drafter, branches)
            costs[branches] = own = self._costs(grown, prompt)
            on_step(f"{name} along the texts")
            along = _Along(target, grown, told, found, self.params)
            predictions += [along.predict(gamma, own) for gamma in self._gammas(grown)]
        first = next(iter(costs.values()))
        step_s, plain_s = first.draft.at(1), first.check.at(1)
        overlaps = [[guess.overlap for guess in one] for one in found]
        mean, interval = _mean(overlaps)
        guessed = [guess.token is not None for one in found for guess in one]
        alike = [one for one in predictions if one.branches == predictions[0].branches]
        return DraftPlan(
            name=name,
            overlap=mean,
            overlap_interval=interval,
            proposed=sum(guessed) / max(1, len(guessed)),
            step_s=step_s,
            cost_ratio=step_s / plain_s,
            costs=costs,
            predictions=tuple(predictions),
            observed={},
            batch_limit=batch_limit(
                alike, _draft_times(drafter, first.draft, prompt), _CheckTimes(first, large)
            ),
        )

    def _gammas(self, drafter: Drafter) -> Sequence[int]:
        """Draft lengths to try; one that learns is told of a whole run of checks for each."""
        if self.gammas is not None:
            for gamma in self.gammas:
                check_fits(gamma, drafter)
            return self.gammas
        learns = open_state(drafter).num_top_ids > 0
        return [one for one in (_FEW_GAMMAS if learns else _GAMMAS) if fits(one, drafter)]

    def _costs(self, drafter: Drafter, prompt: Sequence[int]) -> RoundCosts:
        gammas, target = self._gammas(drafter), self.engine.target
        repeats = max(_REPEATS, _TIMED_ROUNDS // (1 + len(gammas)))
        how = self._params, _fresh(drafter), gammas, repeats
        return measure_rounds(target, self.engine.tokenizer, prompt, *how)

    def _observe(self, drafts: Sequence[DraftPlan], on_step: OnStep) -> list[DraftPlan]:
        """Run what was asked for; else the best drafter, with its best length and half of it."""
        if self.gammas is None:
            first = max(drafts, key=lambda draft: draft.best.speedup)
            best = first.best
            lengths = sorted({best.gamma, max(1, best.gamma // 2)})
            arms = [Arm(first.name, gamma, best.branches) for gamma in lengths]
        else:
            arms = [
                Arm(draft.name, one.gamma, one.branches)
                for draft in drafts
                for one in draft.predictions
            ]
        assert self.params.seed is not None
        bench = Bench(
            self.engine,
            self.drafters,
            [PLAIN, *arms],
            self.params,
            num_rounds=self.num_observed,
            seed=self.params.seed,
            max_tokens=self.max_tokens,
        )
        steps = [(Cell(self.workload.name, self.params.temperature, 1), self.workload)]
        bench.run(steps, lambda cell, arm, is_warm_up: on_step(f"for comparison: {arm.name}"))
        tracks = bench.cells[0].tracks
        plain = cost_table(tracks[0].batches, "decode")
        seen: dict[str, dict[Shape, Observed]] = {}
        for track in tracks[1:]:
            measured = speedup(cost_table(track.batches, "decode"), plain)
            arm = track.arm
            if measured is not None and arm.draft is not None:
                shape = int(arm.gamma), arm.branches
                one = Observed(measured, _tokens_per_pass(track))
                seen.setdefault(arm.draft, {})[shape] = one
        return [replace(draft, observed=seen.get(draft.name, {})) for draft in drafts]


@dataclass
class _Along:
    """What a drafter does along some texts."""

    target: LanguageModel
    drafter: Drafter
    told: Sequence[Told]
    guesses: Sequence[Sequence[Guess]]
    params: SamplingParams

    @property
    def _is_certain(self) -> bool:
        return all(guess.is_certain for one in self.guesses for guess in one)

    @property
    def _goes_by_the_text_alone(self) -> bool:
        """Whether what is drafted for a place does not depend on where the draft began."""
        is_chain, reads_states = self.drafter.branches == 1, bool(self.drafter.boundaries)
        return is_chain and not reads_states and not self._is_certain

    def predict(self, gamma: int, costs: RoundCosts) -> Prediction:
        """What drafts of this length bring, where rounds cost this."""
        times = self._draft_s(costs, gamma), costs.check.at
        return predict(self._rounds(gamma), gamma, *times, self.drafter.branches)

    def _draft_s(self, costs: RoundCosts, gamma: int) -> DraftTime:
        """Seconds of drafting; without a draw, to look for a guess takes as long as to find one."""
        is_drawn = self.drafter.draws_from_law
        return costs.draft.at if is_drawn else lambda _: costs.draft.at(gamma)

    def _rounds(self, gamma: int) -> list[list[Replayed]]:
        """The rounds of every text with this gamma."""
        chance = np.random.default_rng(0)
        is_by_text = _is_by_text(self.params)
        if self._goes_by_the_text_alone:
            return [
                [
                    Replayed(record, (0,) * record.num_accepted)
                    for record in rounds_from_guesses(
                        [_is_kept(guess, chance, is_by_text=is_by_text) for guess in one],
                        gamma,
                        told.text.room,
                    )
                ]
                for one, told in zip(self.guesses, self.told, strict=True)
            ]
        drafter = _fresh(self.drafter)
        if is_by_text or self._is_certain:
            return rounds(self.target, drafter, self.told, gamma)
        return rounds_by_law(self.target, drafter, self.told, gamma, chance.random)


def _is_kept(guess: Guess, chance: np.random.Generator, *, is_by_text: bool) -> bool | None:
    if guess.token is None:
        return None
    return guess.is_right if is_by_text else bool(chance.random() < guess.overlap)


def _is_by_text(params: SamplingParams) -> bool:
    """Whether what is kept is what the text says."""
    return params.is_greedy or params.verifier_name == "coupled"


def _fresh(drafter: Drafter) -> Drafter:
    """One that has learnt nothing of these texts."""
    return drafter.fresh() if isinstance(drafter, FreeDrafter) else drafter


def _tokens_per_pass(track: Track) -> float:
    batches = track.batches.values()
    every = [request.statistics for batch in batches for request in batch.requests]
    return sum(every, SpeculationStatistics()).tokens_per_pass or 1.0


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
    drafter: Drafter, alone: Curve, held: Sequence[int]
) -> Callable[[int, int], float]:
    """Seconds of drafting, by (tokens, sequences)."""
    if not isinstance(drafter, ModelDrafter):
        return lambda count, sequences: alone.at(count) * sequences
    curve = measure_passes(drafter.model, held, _LARGE_PASSES, 3)
    one = curve.at(1)
    return lambda count, sequences: alone.at(count) * curve.at(sequences) / one


def _mean(texts: Sequence[Sequence[float]]) -> tuple[float, Interval | None]:
    """The mean over all positions, and its interval with texts drawn anew."""
    sums = np.array([(sum(one), len(one)) for one in texts])

    def means(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        total, count = np.moveaxis(sums[draws].sum(axis=1), -1, 0)
        return total / count

    total, count = sums.sum(axis=0)
    return float(total / max(1, count)), bootstrap(len(texts), means)
