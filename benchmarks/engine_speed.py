"""Tokens per second of whole runs, alone and in batches, beside an older checkout in turn.

    python -m benchmarks.engine_speed --before OTHER/.venv/bin/python    # results/engine_speed.json

Every arm runs the same texts in both; ratios are medians over the turns. `--before` names the
interpreter of the older checkout's environment.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.common import environment, write_result
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.load import load_model, load_tokenizer
from draftsmith.workloads import load_workload

_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 0.8, "top_p": 0.95, "seed": 1},
    "block": {"temperature": 0.8, "top_p": 0.95, "verifier": "block", "seed": 1},
}
_NUM_TOKENS = {"smollm2-135m-instruct": 96, "qwen2.5-coder-1.5b-instruct": 24}
_ARMS = {
    "smollm2-135m-instruct": [
        (batch, mode, gamma) for batch in (1, 16) for mode in _MODES for gamma in (0, 4)
    ],
    "qwen2.5-coder-1.5b-instruct": [(1, "greedy", 0), (16, "greedy", 0), (16, "seeded", 0)],
}
_TURNS = 3


def speeds(target: str) -> dict[str, float]:
    """Tokens per second of every arm."""
    model, words = load_model(target), load_tokenizer(target)
    items = load_workload("edit").items
    # The ends: reading a prompt is no matter of a round.
    ends = [words.encode(str(item.prompt))[-96:] for item in items]
    prompts = [ends[index % len(ends)] for index in range(16)]
    found: dict[str, float] = {}
    for batch, mode, gamma in _ARMS[target]:
        draft = PromptLookupDrafter() if gamma else None
        engine = Engine(model, draft=draft, gamma=gamma, max_batch_size=16)
        params = SamplingParams(max_tokens=_NUM_TOKENS[target], ignore_eos=True, **_MODES[mode])
        started = time.perf_counter()
        results = engine.generate(prompts[:batch], params)
        seconds = time.perf_counter() - started
        name = f"{mode}, {'prompt lookup' if gamma else 'plain'}, batch {batch}"
        found[name] = sum(len(result.token_ids) for result in results) / seconds
    return found


def in_turn(before: str | None, target: str) -> dict[str, Any]:
    """Medians of both checkouts, and the median of their ratios, arm by arm."""
    command = ["-m", "benchmarks.engine_speed", "--arms", target]
    interpreters = {"before": before, "now": sys.executable}
    runs: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    for turn in range(_TURNS):
        for name, interpreter in interpreters.items():
            if interpreter is not None:
                done = subprocess.run(
                    [interpreter, *command], capture_output=True, text=True, check=True
                )
                runs[name].append(json.loads(done.stdout))
        print(f"{target}: turn {turn + 1} of {_TURNS}", flush=True)
    arms: dict[str, Any] = {}
    for arm in runs["now"][0]:
        now = [run[arm] for run in runs["now"]]
        arms[arm] = {"tokens_per_s": round(statistics.median(now), 2)}
        if before is not None:
            then = [run[arm] for run in runs["before"]]
            pairs = zip(now, then, strict=True)
            arms[arm]["before"] = round(statistics.median(then), 2)
            arms[arm]["ratio"] = round(statistics.median(one / other for one, other in pairs), 3)
        print(arm, arms[arm], flush=True)
    return arms


def main() -> None:
    """Measure every arm, target by target, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="the interpreter of an older checkout's environment")
    parser.add_argument("--arms", metavar="TARGET", help="print one run as JSON, no more")
    options = parser.parse_args()
    if options.arms:
        print(json.dumps(speeds(options.arms)))
        return
    document: dict[str, Any] = {"environment": environment(), "turns": _TURNS, "targets": {}}
    for target in _ARMS:
        document["targets"][target] = in_turn(options.before, target)
        write_result("engine_speed", document)


if __name__ == "__main__":
    main()
