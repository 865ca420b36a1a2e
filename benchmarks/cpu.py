"""Everything on one CPU: ours, llama.cpp and transformers, on the same GGUF files, in one run.

The systems take turns within every round, with the same number of threads. llama.cpp comes as the
wheel `xllamacpp`; the JSON says for which instruction sets that is built. The passes and prompts of
another build are measured beside it if its `libllama.so` is given.

    python -m benchmarks.cpu
    python -m benchmarks.cpu --quick --parts rows decode
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import measure_bandwidth
from benchmarks.common import environment, write_result
from benchmarks.cpu_decode import Plan, measure_decode
from benchmarks.cpu_passes import measure_prompts, measure_rows
from benchmarks.cpu_report import goals, show
from benchmarks.footprint import measure_footprint
from benchmarks.llamacpp import describe

SMALL = "smollm2-135m-instruct"
MODELS = (SMALL, "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
DRAFTS = {"qwen2.5-coder-1.5b-instruct": "qwen2.5-coder-0.5b-instruct"}
PARTS = ("bandwidth", "rows", "decode", "prompt", "memory")


def main() -> None:
    """Run the parts; write `results/cpu.json`; print the goals."""
    options = _options()
    peer = describe(options.llamacpp_library)
    document: dict[str, Any] = {
        "what": "one CPU: T(M), decoding, prompts and memory; ours beside llama.cpp",
        "environment": environment(),
        "peer": peer,
        "settings": {name: _plain(value) for name, value in vars(options).items()},
        "parts": {},
    }
    parts, start = document["parts"], time.perf_counter()
    measures: dict[str, Callable[[argparse.Namespace], Any]] = {
        "bandwidth": lambda options: measure_bandwidth(options.threads),
        "rows": _rows,
        "decode": _decode,
        "prompt": _prompt,
        "memory": _memory,
    }
    for name in PARTS:
        if name in options.parts:
            began, load = time.perf_counter(), os.getloadavg()[0]
            parts[name] = measures[name](options)
            document.setdefault("part_seconds", {})[name] = round(time.perf_counter() - began, 1)
            document.setdefault("load_before", {})[name] = round(load, 2)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    reached = goals(parts)
    document["goals"] = [{**goal._asdict(), "is_met": goal.is_met} for goal in reached]
    document["seconds"] = round(time.perf_counter() - start, 1)
    show(parts, reached)
    print(f"llama.cpp: {peer['wheel']}, {peer['system']}")
    if peer["other_build"]:
        print(f"other build: {peer['other_build']}")
    print(write_result("cpu_quick" if options.quick else "cpu", document))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--llamacpp-library", type=Path, help="another build's libllama.so")
    parser.add_argument("--quick", action="store_true", help="small, few and once; proves nothing")
    options = parser.parse_args()
    quick: bool = options.quick
    defaults = {
        "models": [SMALL] if quick else list(MODELS),
        "rounds": 1 if quick else 2,
        "prompts": 2 if quick else 8,
        "new_tokens": 24 if quick else 128,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else value


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        measure_rows(
            name,
            threads=options.threads,
            repeats=3 if options.quick else 9,
            widths=[1, 4, 8] if options.quick else list(range(1, 17)),
            library=options.llamacpp_library,
            with_transformers=name == SMALL,
        )
        for name in options.models
    ]


def _decode(options: argparse.Namespace) -> list[dict[str, Any]]:
    plan = Plan(
        threads=options.threads,
        rounds=options.rounds,
        num_prompts=options.prompts,
        new_tokens=options.new_tokens,
        edit_tokens=48 if options.quick else 800,
        num_edits=1 if options.quick else 3,
        sweep_tokens=8 if options.quick else 64,
    )
    targets = [name for name in options.models if name not in DRAFTS.values()]
    return [measure_decode(name, DRAFTS.get(name), plan) for name in targets]


def _prompt(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        measure_prompts(
            name,
            threads=options.threads,
            rounds=options.rounds,
            lengths=[128] if options.quick else [128, 512, 1024],
            library=options.llamacpp_library,
            with_transformers=name == SMALL,
        )
        for name in options.models
    ]


def _memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = 1 if options.quick else 3
    return [
        measure_footprint(name, threads=options.threads, rounds=rounds) for name in options.models
    ]


if __name__ == "__main__":
    main()
