"""Host time of a round: the engine over a model whose logits are there at once.

    python -m benchmarks.host_round            # writes results/host_round.json
    python -m benchmarks.host_round --before OTHER/.venv/bin/python    # and what it was

One sequence: each case runs with the sampling kernels and with plain torch, in one process. Batches
of 64: the CPU time of the engine's thread, a sequence and round, on one kernel thread; `--before`
names the interpreter of an older checkout, which is measured in turn with this one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.common import environment, write_result
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Draft, DraftContext, Drafter, ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.kernels.cpu import library, sampling
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows

_NUM_TOKENS = 100
_NUM_REPEATS = 3
_CUTS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}
_BATCH = 64
_BATCH_VOCAB = 1024
"""Small: what a row of logits costs is the kernels' matter."""
_BATCH_TOKENS = 400
_TURNS = 3
_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "coupled": {**_CUTS, "seed": 1},
    "block": {**_CUTS, "verifier": "block"},
    "rejection": {**_CUTS, "verifier": "rejection"},
}


class _NoCache(Cache):
    """Counts its rows."""

    def __init__(self) -> None:
        self._rows = 0

    def add(self) -> int:
        self._rows += 1
        return self._rows

    def remove(self, row: int) -> None:
        pass

    def length(self, row: int) -> int:
        return 0

    def rollback(self, row: int, length: int) -> None:
        pass


class Instant(LanguageModel):
    """The same peaked logits everywhere: thirty likely tokens before a normal crowd."""

    device = torch.device("cpu")

    def __init__(self, vocab_size: int) -> None:
        self.traits = ModelTraits("instant", vocab_size, (), None)
        generator = torch.Generator().manual_seed(0)
        row = 2 * torch.randn(vocab_size, generator=generator)
        likely = torch.randint(0, vocab_size, (30,), generator=generator)
        row[likely] += torch.linspace(16, 10, 30)
        self.logits = row.expand(1, 8, vocab_size).contiguous()

    def open_cache(self) -> Cache:
        """An empty cache."""
        return _NoCache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        """The same logits for every token of every row."""
        return self.logits[:, : batch.width].expand(len(batch.rows), -1, -1)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Nothing to do."""

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Nothing to do."""


class Likeliest(Drafter):
    """Always drafts the likeliest token, for certain."""

    name = "likeliest"

    def __init__(self, model: Instant) -> None:
        self._token = int(model.logits[0, 0].argmax())

    def propose(self, context: DraftContext) -> Draft:
        """The likeliest token, gamma times."""
        rows = [[self._token] * view.gamma for view in context.sequences]
        return Draft.certain(rows, context.device)


def round_ms(vocab_size: int, drafter: str, mode: dict[str, Any]) -> float:
    """Milliseconds of a round, the best of a few runs."""
    model = Instant(vocab_size)
    draft = {
        "none": lambda: None,
        "certain": lambda: Likeliest(model),
        "model": lambda: ModelDrafter(Instant(vocab_size)),
    }[drafter]()
    params = SamplingParams(max_tokens=_NUM_TOKENS, ignore_eos=True, **mode)
    best = float("inf")
    for _ in range(_NUM_REPEATS):
        engine = Engine(model, draft=draft, gamma=4 if draft else None, prefix_caching=False)
        started = time.perf_counter()
        result = engine.generate([[1, 2, 3]], params)[0]
        seconds = time.perf_counter() - started
        num_rounds = 1 + max(trace.round for trace in result.completions[0].trace)
        best = min(best, 1e3 * seconds / num_rounds)
    return round(best, 4)


def batch_us(drafter: str, mode: dict[str, Any]) -> float:
    """Microseconds of CPU that a sequence takes in a round of a batch."""
    model = Instant(_BATCH_VOCAB)
    draft = Likeliest(model) if drafter == "certain" else None
    engine = Engine(
        model, draft=draft, gamma=4 if draft else 0, max_batch_size=_BATCH, prefix_caching=False
    )
    params = SamplingParams(max_tokens=_BATCH_TOKENS, ignore_eos=True, **mode)
    started = time.thread_time()
    results = engine.generate([[1, 2, 3]] * _BATCH, params)
    seconds = time.thread_time() - started
    return 1e6 * seconds / sum(1 + result.completions[0].trace[-1].round for result in results)


def batch_cases() -> dict[str, float]:
    """Every mode, plainly and with drafts that are mostly kept."""
    torch.set_num_threads(1)
    library.set_num_threads(1)
    return {
        f"{name}, {drafter}": batch_us(drafter, mode)
        for name, mode in _MODES.items()
        for drafter in ("none", "certain")
    }


def batches(before: str | None) -> dict[str, Any]:
    """This checkout's batch cases, and another's in turn with them."""
    here = [sys.executable, "-m", "benchmarks.host_round", "--batch-cases"]
    other = [before, "-m", "benchmarks.host_round", "--batch-cases"] if before else None
    found: dict[str, list[dict[str, float]]] = {"now": [], "before": []}
    for turn in range(_TURNS):
        for name, command in (("before", other), ("now", here)):
            if command is not None:
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[name].append(json.loads(done.stdout))
                print(f"turn {turn + 1} of {_TURNS}, {name}: {found[name][-1]}", flush=True)
    medians = {
        name: {case: round(statistics.median(one[case] for one in runs), 2) for case in runs[0]}
        for name, runs in found.items()
        if runs
    }
    shares = {
        case: round(value / medians["before"][case], 3)
        for case, value in medians["now"].items()
        if "before" in medians
    }
    return {"batch": _BATCH, "vocab": _BATCH_VOCAB, "us": medians, "share_of_before": shares}


def main() -> None:
    """Measure every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="the interpreter of an older checkout's environment")
    parser.add_argument("--batch-cases", action="store_true", help="print them as JSON, no more")
    options = parser.parse_args()
    if options.batch_cases:
        print(json.dumps(batch_cases()))
        return
    in_batches = batches(options.before)
    print(in_batches["share_of_before"], flush=True)
    torch.set_num_threads(library.num_threads())
    cases: list[dict[str, Any]] = []
    for vocab_size, drafter in (
        (49152, "none"),
        (151936, "none"),
        (151936, "certain"),
        (151936, "model"),
    ):
        for name, mode in _MODES.items():
            kernels = round_ms(vocab_size, drafter, mode)
            with mock.patch.object(sampling, "library", return_value=None):
                plain = round_ms(vocab_size, drafter, mode)
            cases.append(
                {
                    "vocab": vocab_size,
                    "draft": drafter,
                    "mode": name,
                    "kernels_ms": kernels,
                    "torch_ms": plain,
                }
            )
            print(cases[-1], flush=True)
    document = {
        "environment": environment(),
        "threads": library.num_threads(),
        "cases": cases,
        "batches": in_batches,
    }
    print(write_result("host_round", document))


if __name__ == "__main__":
    main()
