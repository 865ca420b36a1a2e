"""Speed of decoding, alone and in batches, and of single passes, beside an older checkout in turn.

    python -m benchmarks.engine_speed --before OTHER/.venv/bin/python    # results/engine_speed.json

`--before` names the interpreter of the older checkout's environment. Both keep a model loaded, and
every arm runs in both right after each other, first the one and then the other; ratios are medians
over the turns.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import environment, write_result
from draftsmith.models.load import load_tokenizer
from draftsmith.workloads import load_workload

_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 0.8, "top_p": 0.95, "seed": 1},
    "block": {"temperature": 0.8, "top_p": 0.95, "verifier": "block", "seed": 1},
}
_PASSES = [(1, 1), (1, 4), (1, 8), (1, 16), (16, 1), (16, 5), (1, 96)]
"""Sequences and rows of each."""
_SMALL, _LARGE = "smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"
_NUM_TOKENS = {(_SMALL, 1): 192, (_SMALL, 16): 96, (_LARGE, 1): 24, (_LARGE, 16): 12}
_RUNS = {
    _SMALL: [(batch, mode, gamma) for batch in (1, 16) for mode in _MODES for gamma in (0, 4)],
    _LARGE: [(1, "greedy", 0), (1, "greedy", 4), (16, "greedy", 0), (16, "seeded", 0)],
}


class _Worker:
    """A checkout that has the target loaded."""

    def __init__(self, interpreter: str, target: str) -> None:
        script = str(Path(__file__).with_name("engine_worker.py"))
        self._process = subprocess.Popen(
            [interpreter, script, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def seconds(self, arm: dict[str, Any]) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arm) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _arms(target: str) -> dict[str, dict[str, Any]]:
    """What each arm runs, under its name."""
    words = load_tokenizer(target)
    items = load_workload("edit").items
    ends = [words.encode(str(item.prompt))[-96:] for item in items]
    prompts = [ends[index % len(ends)] for index in range(16)]
    arms: dict[str, dict[str, Any]] = {
        f"pass of {batch} x {width}": {"prompts": prompts[:batch], "width": width}
        for batch, width in _PASSES
    }
    for batch, mode, gamma in _RUNS[target]:
        name = f"{mode}, {'prompt lookup' if gamma else 'plain'}, batch {batch}"
        num_tokens = _NUM_TOKENS[target, batch]
        arms[name] = {
            "prompts": prompts[:batch],
            "gamma": gamma,
            "num_tokens": num_tokens,
            "sampling": _MODES[mode],
        }
    return arms


def in_turn(before: str | None, target: str, turns: int) -> dict[str, Any]:
    """Medians of both checkouts, and the median of their ratios, arm by arm."""
    interpreters = {"now": sys.executable} | ({"before": before} if before else {})
    workers = {name: _Worker(path, target) for name, path in interpreters.items()}
    arms = _arms(target)
    found: dict[str, dict[str, list[float]]] = {arm: {name: [] for name in workers} for arm in arms}
    order = random.Random(0)
    for turn in range(turns + 1):
        for arm, what in arms.items():
            names = list(workers)
            order.shuffle(names)
            for name in names:
                seconds = workers[name].seconds(what)
                # The first turn warms up.
                if turn:
                    found[arm][name].append(seconds)
        print(f"{target}: turn {turn} of {turns}", flush=True)
    for worker in workers.values():
        worker.close()
    return {arm: _summary(arms[arm], times) for arm, times in found.items()}


def _summary(what: dict[str, Any], times: dict[str, list[float]]) -> dict[str, float]:
    """Of one arm; `ratio` is how many times as fast it is as before."""
    batch = len(what["prompts"])
    row: dict[str, float] = {}
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        if "width" in what:
            row[f"{name}_ms"] = round(1e3 * middle, 3)
        else:
            row[f"{name}_tokens_per_s"] = round(batch * what["num_tokens"] / middle, 2)
    if "before" in times:
        pairs = zip(times["before"], times["now"], strict=True)
        row["ratio"] = round(statistics.median(then / now for then, now in pairs), 3)
    return row


def main() -> None:
    """Measure every arm, target by target, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="the interpreter of an older checkout's environment")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "environment": environment(),
        "turns": options.turns,
        "targets": {},
    }
    for target in _RUNS:
        document["targets"][target] = in_turn(options.before, target, options.turns)
        for arm, row in document["targets"][target].items():
            print(arm, row, flush=True)
        write_result("engine_speed", document)


if __name__ == "__main__":
    main()
