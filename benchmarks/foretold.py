r"""What `plan` foretells of a draft's chains and trees beside what a run comes to.

    python -m benchmarks.foretold
    python -m benchmarks.foretold --draft qwen2.5-coder-0.5b-instruct \
        --target qwen2.5-coder-1.5b-instruct --gammas 4 8 --prompts 2

Every workload and temperature is planned and run, then all of them again, so that whatever else the
machine does meets all alike. A ratio is the predicted speed-up over the measured one, the median
of the repeats. The JSON is written after each plan.

Where others share the machine, `--cpu-time` runs on one thread and reads its CPU time in the place
of the clock, on both sides: waiting for a core is in neither.
"""

import argparse
import time
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks.common import environment, write_result
from draftsmith.api import load_drafter, load_engine
from draftsmith.bench.plan import Plan
from draftsmith.bench.planner import Planner
from draftsmith.core.params import SamplingParams
from draftsmith.workloads import load_workload

_HEAD = "smollm2-135m-instruct-head"


def main() -> None:
    """Plan every cell, and again."""
    options = _options()
    if options.cpu_time:
        time.perf_counter = time.process_time
    engine = load_engine(options.target, threads=1 if options.cpu_time else None)
    drafter = load_drafter(options.draft, engine, branches=max(options.branches))
    rows: list[dict[str, Any]] = []
    for repeat in range(options.repeats):
        for workload in options.workloads:
            for temperature in options.temperatures:
                planner = Planner(
                    engine,
                    {options.draft: drafter},
                    load_workload(workload).first(options.prompts),
                    SamplingParams(temperature=temperature, seed=0, verifier="coupled"),
                    options.max_tokens,
                    gammas=options.gammas,
                    branches=options.branches,
                )
                cell = {"workload": workload, "temperature": temperature, "repeat": repeat}
                rows += [cell | one for one in _shapes(planner.run(lambda _: None))]
                _write(options, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Predicted beside measured speed-ups.")
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--draft", default=_HEAD)
    parser.add_argument("--workloads", nargs="+", default=["chat", "humaneval"])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--gammas", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--branches", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, not the clock's")
    parser.add_argument("--name", default="foretold", help="of the JSON")
    return parser.parse_args()


def _shapes(plan: Plan) -> list[dict[str, Any]]:
    """Of each gamma and number of branches, both sides."""
    (draft,) = plan.drafts
    found: list[dict[str, Any]] = []
    for one in draft.predictions:
        seen = draft.observed[one.gamma, one.branches]
        shape = {"gamma": one.gamma, "branches": one.branches}
        tokens = {"tokens_per_pass": one.tokens_per_pass, "run": seen.tokens_per_pass}
        speed = {"predicted": one.speedup, "measured": seen.speedup.median}
        costs = {"draft_s": one.draft_s, "check_s": one.check_s}
        costs["plain_s"] = draft.costs[one.branches].check.at(1)
        found.append(shape | tokens | speed | costs | {"found_at": one.found_at})
    return found


def _write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    cells: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        key = row["workload"], row["temperature"], row["gamma"], row["branches"]
        cells[key].append(row)
    summary = [_summary(key, some) for key, some in cells.items()]
    document = {
        "what": "predicted speed-up over plain decoding beside the measured one",
        "environment": environment(),
        "settings": vars(options),
        "summary": summary,
        "rows": rows,
    }
    write_result(options.name, document)
    last = rows[-1]
    for one in summary:
        if all(one[name] == last[name] for name in ("workload", "temperature")):
            print(one, flush=True)


def _summary(key: tuple[Any, ...], rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = dict(zip(("workload", "temperature", "gamma", "branches"), key, strict=True))
    middles = {
        name: round(median(row[name] for row in rows), 3)
        for name in ("tokens_per_pass", "run", "predicted", "measured")
    }
    ratio = median(row["predicted"] / row["measured"] for row in rows)
    return names | middles | {"ratio": round(ratio, 3), "num_repeats": len(rows)}


if __name__ == "__main__":
    main()
