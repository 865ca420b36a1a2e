"""Gamma "auto" beside every fixed gamma, on recorded texts and costs: no noise of the machine.

    python -m benchmarks.gamma_replay            # record on this machine, then replay

Records greedy texts of the Qwen pair on four workloads, the draft's guess and its largest
probability at every token, and what passes take here. Then the engine itself generates the same
texts, with models that know them and a clock that only their passes move. One engine runs all the
texts of all workloads, mixed, as a server's would. What Python takes is left out, for all arms.
"""

import argparse
import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import environment, write_result
from draftsmith import Drafter, Engine, ModelDrafter, PromptLookupDrafter, SamplingParams
from draftsmith.bench.prompts import encode
from draftsmith.core.gamma import Gamma
from draftsmith.engine import scheduler
from draftsmith.engine.rounds import step as round_step
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer
from draftsmith.workloads import load_workload

TARGET, DRAFT = "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"
WORKLOADS = ("edit", "chat", "summarise", "humaneval")
GAMMAS: tuple[Gamma, ...] = (1, 2, 3, 4, 5, 6, 8, 12, 16, "auto")
WIDTHS = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 24, 33)
VOCAB = 2048
"""Ids of a text are renumbered, so that its logits are few."""


@dataclass
class Recorded:
    """One text, and the draft's guesses along it."""

    workload: str
    prompt: list[int]
    output: list[int]
    guesses: list[int]
    probs: list[float]
    """The largest probability of the draft's law at each token."""


@dataclass
class Costs:
    """Seconds of passes, measured."""

    target_s: dict[int, float]
    draft_s: dict[int, float]
    target_read_s: float
    """A token of a prompt."""
    draft_read_s: float


def main() -> None:
    """Record, replay, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=8, help="of each workload")
    parser.add_argument("--new-tokens", type=int, default=128)
    options = parser.parse_args()
    texts, costs = record(options.prompts, options.new_tokens)
    random.Random(0).shuffle(texts)
    found = {
        name: {str(gamma): replay(texts, costs, gamma, name) for gamma in (0, *GAMMAS)}
        for name in ("prompt-lookup", DRAFT)
    }
    rows = [row for name, arms in found.items() for row in _speedups(name, arms)]
    for row in rows:
        print(row)
    document: dict[str, Any] = {
        "what": "times plain decoding, replayed with recorded texts and costs",
        "environment": environment(),
        "settings": vars(options),
        "costs": vars(costs),
        "kept_of_the_drafts_guesses": {
            workload: _share_right(texts, workload) for workload in WORKLOADS
        },
        "rows": rows,
    }
    print(write_result("gamma_replay", document))


def record(num_prompts: int, num_tokens: int) -> tuple[list[Recorded], Costs]:
    """Run the real pair once over every prompt, and time its passes."""
    target = load_model(TARGET, ModelSettings(device="cpu"))
    draft = load_model(DRAFT, ModelSettings(device="cpu"), num_head_ids=32_768)
    tokenizer = load_tokenizer(TARGET)
    engine = Engine(target, tokenizer, PromptLookupDrafter(), gamma=5, prefix_caching=False)
    texts: list[Recorded] = []
    with one_torch_thread(True):
        for workload in WORKLOADS:
            prompts, _ = encode(load_workload(workload).first(num_prompts), tokenizer)
            for prompt in prompts:
                result = engine.generate(prompt, SamplingParams(max_tokens=num_tokens))[0]
                output = list(result.token_ids)
                guesses, probs = _guesses(draft, prompt, output)
                texts.append(Recorded(workload, prompt, output, guesses, probs))
                print(workload, len(output), flush=True)
        return texts, _costs(target, draft, texts[0].prompt)


def _guesses(
    draft: LanguageModel, prompt: list[int], output: list[int]
) -> tuple[list[int], list[float]]:
    cache = draft.open_cache()
    row = cache.add()
    draft.prefill(cache, row, prompt[:-1])
    logits = draft.forward(cache, Rows([row], [[prompt[-1], *output[:-1]]]))[0].float()
    probs, guesses = logits.softmax(-1).max(-1)
    return guesses.tolist(), probs.tolist()


def _costs(target: LanguageModel, draft: LanguageModel, prompt: list[int]) -> Costs:
    """Medians, in turn."""
    caches = {model: model.open_cache() for model in (target, draft)}
    rows = {model: cache.add() for model, cache in caches.items()}
    read_s: dict[LanguageModel, float] = {}
    for model, cache in caches.items():
        start = time.perf_counter()
        model.prefill(cache, rows[model], prompt)
        read_s[model] = (time.perf_counter() - start) / len(prompt)
    times: defaultdict[tuple[LanguageModel, int], list[float]] = defaultdict(list)
    for _ in range(11):
        for model, width in itertools.product((draft, target), WIDTHS):
            start = time.perf_counter()
            model.forward(caches[model], Rows([rows[model]], [[100] * width]))
            times[model, width].append(time.perf_counter() - start)
            caches[model].rollback(rows[model], len(prompt))
    median = {key: statistics.median(values) for key, values in times.items()}
    target_s, draft_s = ({width: median[model, width] for width in WIDTHS} for model in caches)
    return Costs(target_s, draft_s, read_s[target], read_s[draft])


@dataclass
class Clock:
    """Stands in for the clock of the engine: nothing moves it but passes."""

    now: float = 0.0

    def perf_counter(self) -> float:
        """The time."""
        return self.now


@contextmanager
def stopped() -> Generator[Clock]:
    """A clock for the engine."""
    clock = Clock()
    with (
        mock.patch.object(scheduler, "clock", clock),
        mock.patch.object(round_step, "clock", clock),
    ):
        yield clock


@dataclass
class Script:
    """What a model says at each position of the text in hand, and how surely."""

    first: int = 0
    says: Sequence[int] = ()
    probs: Sequence[float] = ()


@dataclass
class Actor(LanguageModel):
    """Says what its script says, and takes as long as was measured."""

    clock: Clock
    pass_s: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    """By rows."""
    read_s: float
    script: Script = field(default_factory=Script)
    uses_torch_threads: bool = False

    def __post_init__(self) -> None:
        """Traits of a model with few ids."""
        self.traits = ModelTraits("recorded", VOCAB, (), None)
        self.device = torch.device("cpu")

    def open_cache(self) -> Cache:
        """Positions are all there is to remember."""
        return CountedCache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        """Laws whose largest probabilities are the recorded ones."""
        assert isinstance(cache, CountedCache)
        rows = sum(map(len, batch.tokens))
        beyond = max(0, rows - len(self.pass_s) + 1)
        self.clock.now += float(self.pass_s[rows - beyond]) + beyond * self.read_s
        logits = torch.full((len(batch.rows), batch.width, VOCAB), -50.0)
        for number, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for step in range(len(tokens)):
                place = cache.length(row) + step + 1 - self.script.first
                said, prob = 0, 0.5
                if 0 <= place < len(self.script.says):
                    said, prob = self.script.says[place], self.script.probs[place]
                rest = 1 - min(max(prob, 1e-3), 1 - 1e-6)
                # As many others as it takes for none of them to be the likeliest.
                others = 1 + int(rest / (1 - rest))
                shared = (torch.arange(1, others + 1) + said) % VOCAB
                logits[number, step, shared] = float(np.log(rest / (1 - rest) / others))
                logits[number, step, said] = 0.0
            cache.append(row, len(tokens))
        return logits

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Read a prompt."""
        assert isinstance(cache, CountedCache)
        self.clock.now += self.read_s * len(tokens)
        cache.append(row, len(tokens))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never asked for."""
        raise NotImplementedError


def replay(texts: Sequence[Recorded], costs: Costs, gamma: Gamma, name: str) -> dict[str, float]:
    """Seconds of each workload's texts, prompts included, all texts through one engine."""
    seconds: defaultdict[str, float] = defaultdict(float)
    with stopped() as clock:
        target = Actor(clock, _curve(costs.target_s), costs.target_read_s)
        model = Actor(clock, _curve(costs.draft_s), costs.draft_read_s)
        drafter: Drafter = ModelDrafter(model) if name == DRAFT else PromptLookupDrafter()
        engine = Engine(target, None, drafter if gamma else None, gamma=gamma, prefix_caching=False)
        for text in texts:
            ids: dict[int, int] = {}
            prompt, output, guesses = (
                [ids.setdefault(token, len(ids) + 1) for token in tokens]
                for tokens in (text.prompt, text.output, text.guesses)
            )
            target.script = Script(len(prompt), output, [1.0] * len(output))
            model.script = Script(len(prompt), guesses, text.probs)
            start = clock.now
            result = engine.generate(prompt, SamplingParams(max_tokens=len(output)))[0]
            assert list(result.token_ids) == output
            seconds[text.workload] += clock.now - start
            seconds["all"] += clock.now - start
    return dict(seconds)


def _curve(seconds: dict[int, float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """By rows, straight lines between what was measured."""
    return np.interp(np.arange(max(seconds) + 1), list(seconds), list(seconds.values()))


def _speedups(name: str, arms: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    for gamma, seconds in arms.items():
        if gamma != "0":
            times = {key: round(arms["0"][key] / value, 3) for key, value in seconds.items()}
            yield {"draft": name, "gamma": gamma, **times}


def _share_right(texts: Sequence[Recorded], workload: str) -> float:
    pairs = [
        pair
        for text in texts
        if text.workload == workload
        for pair in zip(text.output, text.guesses, strict=True)
    ]
    return round(sum(one == other for one, other in pairs) / len(pairs), 3)


if __name__ == "__main__":
    main()
