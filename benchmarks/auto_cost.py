"""What gamma auto costs where no draft pays, beside plain decoding, and whether its ledger says so.

    python -m benchmarks.auto_cost                                  # SmolLM2: about 3 minutes
    python -m benchmarks.auto_cost --target qwen2.5-coder-1.5b-instruct --pairs 6    # about 12

Two drafts that are never right, one that tells how sure it is and one that does not. Plain decoding
and auto generate the same text round by round in turn, so that a machine that changes its speed
changes both; every pair has an engine of its own, which must find out anew. Then the CPU time of
the controller's two calls in plain rounds. Each part is written as it is measured.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from benchmarks.common import environment, humaneval_prompts, write_result
from benchmarks.summaries import settle, spread
from draftsmith import Draft, DraftContext, Drafter, Engine, SamplingParams
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Choice, Ledger, RoundReport, Sample
from draftsmith.engine.requests.result import StreamEvent
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer

SMALL = "smollm2-135m-instruct"
MOST_OWN_US = 20.0
"""CPU time of the controller in a plain round, on average."""
MOST_LOSS = 0.010
MOST_LEDGER_MISS = 0.003
_UNLIKELY_TOKEN = 3


class Hopeless(Drafter):
    """Always the same unlikely token, in no time.

    Args:
        confidence: What it tells of each; None tells nothing.
    """

    uses_torch_threads = False

    def __init__(self, confidence: float | None) -> None:
        self.name = "hopeless" if confidence is None else "hopeless and doubtful"
        self._confidence = confidence

    def propose(self, context: DraftContext) -> Draft:
        """As many as are wanted."""
        rows = [[_UNLIKELY_TOKEN] * view.gamma for view in context.sequences]
        if self._confidence is None:
            return Draft.certain(rows, context.device)
        sure = [[self._confidence] * view.gamma for view in context.sequences]
        return Draft.certain(rows, context.device, sure)


DRAFTS = {"silent": None, "doubtful": 0.3}


class Pair(NamedTuple):
    """One text, plainly and with auto."""

    plain_s: float
    auto_s: float
    ledger: Ledger

    @property
    def loss(self) -> float:
        """By the clock."""
        return self.auto_s / self.plain_s - 1

    @property
    def ledger_loss(self) -> float:
        """By the controller's own books."""
        return self.ledger.spent_s / self.ledger.plain_s - 1


class Clocked(AutoGamma):
    """Notes the CPU time of its calls in rounds that draft nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.choose_s: list[float] = []
        self.observe_s: list[float] = []

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        """As ever, timed."""
        start = time.thread_time()
        choice = super().choose(sequences)
        if not any(choice.gammas):
            self.choose_s.append(time.thread_time() - start)
        return choice

    def observe(self, report: RoundReport) -> None:
        """As ever, timed."""
        start = time.thread_time()
        super().observe(report)
        if not any(report.gammas):
            self.observe_s.append(time.thread_time() - start)


def main() -> None:
    """Measure each part, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=SMALL)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    target = load_model(options.target, ModelSettings(device="cpu"))
    tokenizer = load_tokenizer(options.target)
    prompts = [tokenizer.encode(one) for one in humaneval_prompts(options.pairs)]
    params = SamplingParams(max_tokens=options.tokens, ignore_eos=True)
    document: dict[str, Any] = {
        "what": "gamma auto with drafts that are never right, beside plain decoding",
        "environment": environment(),
        "settings": vars(options),
        "bars": {
            "own_us": MOST_OWN_US,
            "loss": MOST_LOSS,
            "ledger_miss": MOST_LEDGER_MISS,
        },
        "parts": {},
    }
    name = "auto_cost" if options.target == SMALL else f"auto_cost_{options.target}"
    for draft, confidence in DRAFTS.items():
        for part, measure in (("wall", measure_wall), ("cpu", measure_cpu)):
            found = measure(target, confidence, prompts, params)
            document["parts"][f"{part} {draft}"] = found
            print(part, draft, {key: one for key, one in found.items() if key != "pairs"})
            print(write_result(name, document), flush=True)


def measure_wall(
    target: LanguageModel,
    confidence: float | None,
    prompts: Sequence[list[int]],
    params: SamplingParams,
) -> dict[str, Any]:
    """The loss by the clock and by the ledger, over all texts and text by text."""
    run_pair(target, confidence, prompts[0], params, is_plain_first=True)
    settle()
    pairs = [
        run_pair(target, confidence, prompt, params, is_plain_first=number % 2 == 0)
        for number, prompt in enumerate(prompts)
    ]
    plain_s, auto_s = sum(one.plain_s for one in pairs), sum(one.auto_s for one in pairs)
    ledger = sum((one.ledger for one in pairs), Ledger())
    loss, ledger_loss = auto_s / plain_s - 1, ledger.spent_s / ledger.plain_s - 1
    misses = [one.ledger_loss - one.loss for one in pairs]
    return {
        "loss": round(loss, 5),
        "ledger_loss": round(ledger_loss, 5),
        "is_loss_met": loss <= MOST_LOSS,
        "is_ledger_met": abs(ledger_loss - loss) <= MOST_LEDGER_MISS,
        "plain_ms_a_round": round(1e3 * plain_s / ledger.num_rounds, 4),
        "own_us_a_round": round(1e6 * ledger.own_s / ledger.num_rounds, 2),
        "outside_the_ledger": round(1 - ledger.spent_s / auto_s, 5),
        "rounds": ledger.num_rounds,
        "plain_rounds": ledger.num_plain_rounds,
        "losses": spread([one.loss for one in pairs], 5),
        "ledger_misses": spread(misses, 5),
    }


def run_pair(
    target: LanguageModel,
    confidence: float | None,
    prompt: list[int],
    params: SamplingParams,
    *,
    is_plain_first: bool,
) -> Pair:
    """One text of both, a round of each in turn."""
    auto = Engine(target, draft=Hopeless(confidence), gamma="auto", prefix_caching=False)
    runs = [
        Engine(target, prefix_caching=False).stream([prompt], params),
        auto.stream([prompt], params),
    ]
    taken: list[list[float]] = [[], []]
    order = (0, 1) if is_plain_first else (1, 0)
    ledger: Ledger | None = None
    clocked = [_clocked(runs[one], taken[one]) for one in order]
    for events in zip_longest(*clocked):
        for event in events:
            if event is not None and event.result is not None:
                ledger = event.result.ledger or ledger
    assert ledger is not None
    return Pair(sum(taken[0]), sum(taken[1]), ledger)


def _clocked(events: Iterator[StreamEvent], taken: list[float]) -> Iterator[StreamEvent]:
    """The events, and the time that each took to come."""
    while True:
        start = time.perf_counter()
        event = next(events, None)
        taken.append(time.perf_counter() - start)
        if event is None:
            return
        yield event


def measure_cpu(
    target: LanguageModel,
    confidence: float | None,
    prompts: Sequence[list[int]],
    params: SamplingParams,
) -> dict[str, Any]:
    """CPU time of the controller in plain rounds; what other processes do is not in it."""
    choose_us: list[float] = []
    observe_us: list[float] = []
    for prompt in prompts[:4]:
        engine = Engine(target, draft=Hopeless(confidence), gamma="auto", prefix_caching=False)
        controller = engine.controller = Clocked()
        engine.generate([prompt], params)
        choose_us += [1e6 * one for one in controller.choose_s]
        observe_us += [1e6 * one for one in controller.observe_s]
    own_us = statistics.mean(choose_us) + statistics.mean(observe_us)
    return {
        "own_us": round(own_us, 2),
        "is_own_met": own_us <= MOST_OWN_US,
        "choose_us": {
            "mean": round(statistics.mean(choose_us), 2),
            "median": round(statistics.median(choose_us), 2),
        },
        "observe_us": {
            "mean": round(statistics.mean(observe_us), 2),
            "median": round(statistics.median(observe_us), 2),
        },
        "plain_rounds": len(choose_us),
    }


if __name__ == "__main__":
    main()
