"""What a target's checks and a draft's passes cost here, measured in the engine's own rounds."""

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.clock import Clock, ClockedModel
from draftsmith.bench.filled import Filled
from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter
from draftsmith.engine.control.contract import Choice, Controller, Ledger, RoundReport, Sample
from draftsmith.engine.control.fixed import at_most
from draftsmith.engine.engine import Engine
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["ALL_GAMMAS", "Curve", "RoundCosts", "measure_passes", "measure_rounds"]

ALL_GAMMAS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 23, 31)
"""With them, checks of 1 to 32 rows."""
_ROUNDS_OF_A_TEXT = 3


@dataclass(frozen=True)
class Curve:
    """Means over a count, with straight lines between the counts that were measured."""

    counts: tuple[int, ...]
    samples: tuple[tuple[float, ...], ...]
    """Seconds, for each count."""

    @property
    def means(self) -> NDArray[np.float64]:
        """Seconds, for each count: means without the tenths at both ends.

        What a text takes is a sum. On a machine that others share, times lie around two values,
        and a median jumps from one to the other.
        """
        return np.array([_middle(one) for one in self.samples])

    def at(self, count: int | float) -> float:
        """Seconds for any count; beyond the last the last slope goes on."""
        means = _rising(self.means)
        found = float(np.interp(count, self.counts, means))
        if len(self.counts) > 1 and count > self.counts[-1]:
            slope = (means[-1] - means[-2]) / (self.counts[-1] - self.counts[-2])
            found += float(slope) * (count - self.counts[-1])
        return found

    def to_dict(self) -> dict[str, object]:
        """By name, ready for JSON."""
        return {
            "counts": list(self.counts),
            "mean_s": self.means.tolist(),
            "median_s": [float(np.median(one)) for one in self.samples],
            "p10_s": [float(np.percentile(one, 10)) for one in self.samples],
            "p90_s": [float(np.percentile(one, 90)) for one in self.samples],
            "num_samples": [len(one) for one in self.samples],
        }


@dataclass(frozen=True)
class RoundCosts:
    """T(M), what a round has beside it, and what drafting takes."""

    check: Curve
    """Seconds of a round without its drafting, by checked rows: the pass, the verdict, the
    bookkeeping."""
    passes: Curve
    """Of these, seconds of the target's pass."""
    draft: Curve
    """Seconds of drafting, by drafted tokens: reading what was committed, the states of it
    included, and the steps."""


@dataclass
class _Sweep(Controller):
    """Runs through lengths, over and over, and notes what each took."""

    gammas: Many[int]
    clock: Clock
    number: int = 0
    """Timed rounds so far."""
    check_s: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    pass_s: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    draft_s: dict[int, list[float]] = field(default_factory=dict[int, list[float]])

    def choose(self, sequences: Many[Sample]) -> Choice:
        self.clock.pending_pass_s = 0.0
        asked = self.gammas[self.number % len(self.gammas)]
        return Choice([at_most(asked, one) for one in sequences])

    def observe(self, report: RoundReport) -> None:
        if report.is_first:
            return
        self.number += 1
        drafted = report.num_drafted
        rows = len(report.records) + drafted
        self.check_s.setdefault(rows, []).append(report.total_s - report.draft_s)
        self.pass_s.setdefault(rows, []).append(self.clock.pending_pass_s)
        self.draft_s.setdefault(drafted, []).append(report.draft_s)

    @property
    def ledger(self) -> Ledger | None:
        return None


def measure_rounds(
    target: LanguageModel,
    tokenizer: Tokenizer | None,
    prompt: Many[int],
    params: SamplingParams,
    drafter: Drafter | None = None,
    gammas: Many[int] = ALL_GAMMAS,
    repeats: int = 7,
) -> RoundCosts:
    """Time rounds of each length in turn, plain ones among them, of one sequence.

    Args:
        target: The model.
        tokenizer: Its own, so that rounds do what they always do.
        prompt: Token ids; the context that the checks look back on.
        params: How laws are made: a verdict over a sampled law costs more than an argmax. A text
            of at most so many tokens is begun anew until there are rounds enough.
        drafter: Who drafts; None is nobody, and what is timed is the check.
        gammas: Drafted tokens; a drafter that finds fewer has its draft filled up with junk.
        repeats: Timed rounds of each length; one more warms up.
    """
    clock = Clock()
    draws = drafter is not None and drafter.draws_from_law
    drafting = drafter if drafter is not None and draws else Filled(drafter, target)
    engine = Engine(
        ClockedModel(target, clock),
        tokenizer,
        drafting,
        # Whatever it is: the sweep below says how much is drafted.
        gamma=min(MAX_GAMMA, drafting.longest),
        prefix_caching=False,
    )
    sweep = _Sweep((0, *gammas), clock)
    engine.controller = sweep
    # Behind its first round, which reads the prompt, a text has some of the longest.
    length = max(params.longest_output, _ROUNDS_OF_A_TEXT * (max(gammas) + 1))
    context = target.traits.context_length
    if context is not None:
        length = min(length, max(2, context // 2))
        prompt = prompt[-max(1, context - length) :]
    options = replace(params, max_tokens=length, ignore_eos=True, stop=())
    most = (repeats + 1) * len(sweep.gammas)
    while sweep.number < most:
        before = sweep.number
        for _ in engine.start(list(prompt), options):
            if sweep.number >= most:
                break
        if sweep.number == before:
            break
    curves = (_curve(taken, repeats) for taken in (sweep.check_s, sweep.pass_s, sweep.draft_s))
    return RoundCosts(*curves)


def measure_passes(
    model: LanguageModel, held: Many[int], counts: Many[int], repeats: int = 5
) -> Curve:
    """Time passes of a model over some rows, after the tokens `held`, in turn."""
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, held)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    with one_torch_thread(not model.uses_torch_threads):
        for count in [*counts] * (repeats + 1):
            start = time.perf_counter()
            # Reading a number waits for an accelerator.
            float(model.forward(cache, Rows([row], [[held[-1]] * count]))[0, -1, 0])
            taken[count].append(time.perf_counter() - start)
            cache.rollback(row, len(held))
    return _curve(taken, repeats)


def _middle(samples: Many[float]) -> float:
    cut = len(samples) // 10
    return float(np.mean(sorted(samples)[cut : len(samples) - cut]))


def _rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest values that never fall: more never costs less, and a dip is noise.

    Neighbours in the wrong order take their mean (isotonic regression).
    """
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    return np.concatenate([np.full(count, mean) for mean, count in blocks])


def _curve(taken: dict[int, list[float]], repeats: int) -> Curve:
    """The last `repeats` of each: the ones before warm up; what seldom came is left out."""
    least = max(2, repeats // 2)
    counts = sorted(count for count, seconds in taken.items() if len(seconds) >= least)
    return Curve(tuple(counts), tuple(tuple(taken[count][-repeats:]) for count in counts))
