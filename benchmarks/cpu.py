"""Everything on one CPU: ours, llama.cpp and transformers, on the same GGUF files, in one run.

The systems take turns within every round, with the same number of threads. llama.cpp comes as the
wheel `xllamacpp`; the JSON says for which instruction sets that is built. The passes and prompts of
another build are measured beside it if its `libllama.so` is given.

It takes about 25 minutes where llama.cpp is fast, and over 40 where it is slow (an Intel machine on
which it ran at 8 to 12 tokens/s). Each step is kept as it is measured, in
`results/cpu.partial.json`: a run that was cut off goes on there.

    python -m benchmarks.cpu
    python -m benchmarks.cpu --quick --parts rows decode
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import measure_bandwidth
from benchmarks.common import RESULTS, environment, write_result
from benchmarks.cpu_decode import Plan, measure_workload, workloads
from benchmarks.cpu_passes import measure_prompts, measure_rows
from benchmarks.cpu_report import goals, show
from benchmarks.footprint import measure_footprint
from benchmarks.llamacpp import describe
from benchmarks.stepwise import Kept, Step, run_steps

SMALL = "smollm2-135m-instruct"
MODELS = (SMALL, "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
DRAFTS = {"qwen2.5-coder-1.5b-instruct": "qwen2.5-coder-0.5b-instruct"}
PARTS = ("bandwidth", "rows", "decode", "prompt", "memory")
_SAME = ("commit", "cpu", "num_cpus", "versions")
"""Of the environment: what a run that goes on must share with the one before."""


def main() -> None:
    """Run the parts; write `results/cpu.json`; print the goals."""
    options = read_options()
    peer, where = describe(options.llamacpp_library), environment()
    settings = {name: _plain(value) for name, value in vars(options).items() if name != "anew"}
    name = "cpu_quick" if options.quick else "cpu"
    key = {"settings": settings, "peer": peer, **{one: where[one] for one in _SAME}}
    path = RESULTS / f"{name}.partial.json"
    if options.anew:
        path.unlink(missing_ok=True)
    kept, steps = Kept(path, key), steps_of(options)
    run_steps(steps, kept, _expected(steps), partial(print, flush=True))
    parts = as_parts(options, kept)
    reached = goals(parts)
    document: dict[str, Any] = {
        "what": "one CPU: T(M), decoding, prompts and memory; ours beside llama.cpp",
        "environment": where,
        "peer": peer,
        "settings": settings,
        "parts": parts,
        "step_seconds": {name: one["seconds"] for name, one in kept.steps.items()},
        "load_before": {name: one["load_before"] for name, one in kept.steps.items()},
        "goals": [{**goal._asdict(), "is_met": goal.is_met} for goal in reached],
        "seconds": round(sum(one["seconds"] for one in kept.steps.values()), 1),
    }
    show(parts, reached)
    print(f"llama.cpp: {peer['wheel']}, {peer['system']}")
    if peer["other_build"]:
        print(f"other build: {peer['other_build']}")
    print(write_result(name, document))
    kept.close()


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's; None reads the program's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--llamacpp-library", type=Path, help="another build's libllama.so")
    parser.add_argument("--quick", action="store_true", help="small, few and once; proves nothing")
    parser.add_argument("--anew", action="store_true", help="forget a run that was cut off")
    options = parser.parse_args(arguments)
    quick: bool = options.quick
    defaults = {
        "models": [SMALL] if quick else list(MODELS),
        "rounds": 1,
        "prompts": 2 if quick else 6,
        "new_tokens": 24 if quick else 128,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def steps_of(options: argparse.Namespace) -> list[Step]:
    """All that is measured, in order."""
    measures: dict[str, Callable[[argparse.Namespace, str], Any]] = {
        "rows": _rows,
        "prompt": _prompt,
        "memory": _memory,
    }
    steps: list[Step] = []
    for part in PARTS:
        if part not in options.parts:
            continue
        if part == "bandwidth":
            steps.append(Step(part, partial(measure_bandwidth, options.threads)))
        elif part == "decode":
            steps += [
                Step(f"decode {target}: {workload}", partial(_decode, options, target, workload))
                for target in _targets(options)
                for workload in workloads(DRAFTS.get(target))
            ]
        else:
            measure = measures[part]
            steps += [
                Step(f"{part} {name}", partial(measure, options, name)) for name in options.models
            ]
    return steps


def as_parts(options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """The results of the steps, part by part."""
    found = {name: one["result"] for name, one in kept.steps.items()}
    parts: dict[str, Any] = {}
    for part in options.parts:
        if part == "bandwidth":
            parts[part] = found[part]
        elif part == "decode":
            parts[part] = [
                {
                    "target": target,
                    "draft": DRAFTS.get(target),
                    "workloads": {
                        workload: found[f"decode {target}: {workload}"]
                        for workload in workloads(DRAFTS.get(target))
                    },
                }
                for target in _targets(options)
            ]
        else:
            parts[part] = [found[f"{part} {name}"] for name in options.models]
    return {part: parts[part] for part in PARTS if part in parts}


def _targets(options: argparse.Namespace) -> list[str]:
    return [name for name in options.models if name not in DRAFTS.values()]


def _expected(steps: Sequence[Step]) -> dict[str, float]:
    """Seconds of each step in the JSON that is there; of a whole part, an equal share."""
    try:
        known = json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if "step_seconds" in known:
        return dict(known["step_seconds"])
    of_part: dict[str, float] = known.get("part_seconds", {})
    kinds = [step.name.partition(" ")[0] for step in steps]
    return {
        step.name: of_part[kind] / kinds.count(kind)
        for step, kind in zip(steps, kinds, strict=True)
        if kind in of_part
    }


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else value


def _rows(options: argparse.Namespace, name: str) -> dict[str, Any]:
    return measure_rows(
        name,
        threads=options.threads,
        repeats=3 if options.quick else 9,
        widths=[1, 4, 8] if options.quick else list(range(1, 17)),
        library=options.llamacpp_library,
        with_transformers=name == SMALL,
    )


def _decode(options: argparse.Namespace, target: str, workload: str) -> dict[str, Any]:
    plan = Plan(
        threads=options.threads,
        rounds=options.rounds,
        num_prompts=options.prompts,
        new_tokens=options.new_tokens,
        edit_tokens=48 if options.quick else 800,
        num_edits=1 if options.quick else 3,
        sweep_tokens=8 if options.quick else 64,
    )
    return measure_workload(target, DRAFTS.get(target), workload, plan)


def _prompt(options: argparse.Namespace, name: str) -> dict[str, Any]:
    return measure_prompts(
        name,
        threads=options.threads,
        rounds=options.rounds,
        lengths=[128] if options.quick else [128, 512, 1024],
        library=options.llamacpp_library,
        with_transformers=name == SMALL,
    )


def _memory(options: argparse.Namespace, name: str) -> dict[str, Any]:
    return measure_footprint(name, threads=options.threads, rounds=1 if options.quick else 3)


if __name__ == "__main__":
    main()
