"""What a target's checks and a draft's passes cost here, measured in the engine's own rounds."""

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.clock import Clock, ClockedModel
from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.params import SamplingParams
from draftsmith.drafters.contract import DraftContext, Drafter
from draftsmith.drafters.draft import Draft
from draftsmith.engine.control.contract import Choice, Controller, Ledger, RoundReport, Sample
from draftsmith.engine.engine import Engine
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["Curve", "RoundCosts", "measure_passes", "measure_rounds"]

_GAMMAS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 23, 31)


@dataclass(frozen=True)
class Curve:
    """Medians over a count, with straight lines between the counts that were measured."""

    counts: tuple[int, ...]
    samples: tuple[tuple[float, ...], ...]
    """Seconds, for each count."""

    @property
    def medians(self) -> NDArray[np.float64]:
        """Seconds, for each count."""
        return np.array([float(np.median(one)) for one in self.samples])

    def at(self, count: int | float) -> float:
        """Seconds for any count; beyond the last the last slope goes on."""
        # More never costs less: a dip between two measurements is noise.
        medians = np.maximum.accumulate(self.medians)
        found = float(np.interp(count, self.counts, medians))
        if len(self.counts) > 1 and count > self.counts[-1]:
            slope = (medians[-1] - medians[-2]) / (self.counts[-1] - self.counts[-2])
            found += float(slope) * (count - self.counts[-1])
        return found

    def to_dict(self) -> dict[str, object]:
        """By name, ready for JSON."""
        return {
            "counts": list(self.counts),
            "median_s": self.medians.tolist(),
            "p10_s": [float(np.percentile(one, 10)) for one in self.samples],
            "p90_s": [float(np.percentile(one, 90)) for one in self.samples],
            "num_samples": [len(one) for one in self.samples],
        }


@dataclass(frozen=True)
class RoundCosts:
    """T(M) and what a round has beside it."""

    check: Curve
    """Seconds of a round without its drafting, by checked rows: the pass, the verdict, the
    bookkeeping."""
    passes: Curve
    """Of these, seconds of the target's pass."""


class _Junk(Drafter):
    """As many tokens as are wanted, of no worth: what is timed is the check."""

    name = "junk"
    uses_torch_threads = False

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def propose(self, context: DraftContext) -> Draft:
        rows = [
            [(view.tokens[-1] + 1 + step) % self._vocab_size for step in range(view.gamma)]
            for view in context.sequences
        ]
        return Draft.certain(rows, context.device)


@dataclass
class _Sweep(Controller):
    """Runs through lengths, over and over, and notes what each took."""

    gammas: Many[int]
    clock: Clock
    number: int = 0
    check_s: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    pass_s: dict[int, list[float]] = field(default_factory=dict[int, list[float]])

    def choose(self, sequences: Many[Sample]) -> Choice:
        self.clock.pending_pass_s = 0.0
        return Choice([self.gammas[self.number % len(self.gammas)]] * len(sequences))

    def observe(self, report: RoundReport) -> None:
        self.number += 1
        if not report.is_first:
            rows = len(report.records) + sum(record.num_drafted for record in report.records)
            self.check_s.setdefault(rows, []).append(report.total_s - report.draft_s)
            self.pass_s.setdefault(rows, []).append(self.clock.pending_pass_s)

    @property
    def ledger(self) -> Ledger | None:
        return None


def measure_rounds(
    target: LanguageModel,
    tokenizer: Tokenizer | None,
    prompt: Many[int],
    params: SamplingParams,
    repeats: int = 7,
) -> RoundCosts:
    """Time checks of 1 to 32 rows in turn, in real rounds of one sequence.

    Args:
        target: The model.
        tokenizer: Its own, so that rounds do what they always do.
        prompt: Token ids; the context that the checks look back on.
        params: How laws are made: a verdict over a sampled law costs more than an argmax.
        repeats: Timed rounds of each size; one more warms up.
    """
    clock = Clock()
    engine = Engine(
        ClockedModel(target, clock),
        tokenizer,
        _Junk(target.traits.vocab_size),
        gamma=MAX_GAMMA,
        prefix_caching=False,
    )
    length = target.traits.context_length
    # A round emits at least one token; the longest check needs room behind it.
    most = (repeats + 1) * len(_GAMMAS) + 1
    longest = most + MAX_GAMMA + 1
    if length is not None:
        prompt = prompt[-max(1, length - most - MAX_GAMMA) :]
        longest = min(longest, length - len(prompt))
    sweep = _Sweep(_GAMMAS, clock)
    engine.controller = sweep
    options = replace(params, max_tokens=longest, ignore_eos=True, stop=())
    run = engine.start(list(prompt), options)
    for _ in run:
        if sweep.number > most:
            break
    return RoundCosts(_curve(sweep.check_s, repeats), _curve(sweep.pass_s, repeats))


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


def _curve(taken: dict[int, list[float]], repeats: int) -> Curve:
    """The last `repeats` of each: the ones before warm up."""
    counts = sorted(count for count, seconds in taken.items() if len(seconds) >= 2)
    return Curve(tuple(counts), tuple(tuple(taken[count][-repeats:]) for count in counts))
