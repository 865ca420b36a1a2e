r"""Every draft beside plain decoding: speed, tokens a pass, and whether the text is the same.

    python -m benchmarks.drafts                                      # SmolLM2: results/drafts.json
    python -m benchmarks.drafts --target qwen2.5-coder-1.5b-instruct \
        --drafts prompt-lookup free qwen2.5-coder-0.5b-instruct --prompts 4
    python -m benchmarks.drafts --resume                             # goes on where the JSON ends

One loaded target serves an engine for each draft; a draft that learns begins each workload with
nothing, and keeps from prompt to prompt what they have taught it. Each prompt is run by all of them
in turn, in an order that changes from prompt to prompt; the time is a whole request's, its prompt
included. A speed-up is plain decoding's time for all prompts over the draft's. Beside it stands
that of decoding: from both times the one to plain decoding's first token is taken (the less of two
more runs), so that a draft's own reading of the prompt still counts. The JSON is written after each
prompt.
"""

import argparse
import json
import math
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, write_result
from draftsmith.api import load_drafter, load_engine
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import FreeDrafter
from draftsmith.engine.engine import Engine
from draftsmith.workloads import Item, load_workload

_SHARED = ("target", "max_tokens", "gamma")
"""Options that rows of one JSON must have in common; others only add rows."""


def main() -> None:
    """Run all pairs of workload and temperature."""
    options = _options()
    rows = _rows_of(options) if options.resume else []
    engines = _engines(options)
    # Whoever is asked first must not pay for what a process does once.
    warm = load_workload("chat").first(1).items[0]
    engines["plain"].generate([_prompt(warm)], SamplingParams(max_tokens=4))
    for temperature in options.temperatures:
        for workload in options.workloads:
            _forget(engines)
            for number, item in enumerate(load_workload(workload).first(options.prompts).items):
                place = {"workload": workload, "temperature": temperature, "prompt": number}
                if any(row.items() >= place.items() for row in rows):
                    continue
                arms = _in_turn(engines, item, temperature, number, options)
                prompt_s = _first_token_s(engines["plain"], item)
                rows.append(place | {"prompt_s": prompt_s, "arms": arms})
                _write(options, rows)
            _tell(workload, temperature, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--drafts", nargs="+", default=["prompt-lookup", "free"])
    parser.add_argument("--workloads", nargs="+", default=["chat", "edit", "humaneval"])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--gamma", default="auto")
    parser.add_argument("--name", default="drafts", help="of the JSON")
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON has")
    return parser.parse_args()


def _engines(options: argparse.Namespace) -> dict[str, Engine]:
    plain = load_engine(options.target, gamma=0)
    gamma = options.gamma if options.gamma == "auto" else int(options.gamma)
    engines = {"plain": plain}
    for name in options.drafts:
        draft = load_drafter(name, plain)
        engines[name] = Engine(
            plain.target, plain.tokenizer, draft, gamma=gamma, prefix_caching=False
        )
    engines["plain"] = Engine(plain.target, plain.tokenizer, gamma=0, prefix_caching=False)
    return engines


def _forget(engines: dict[str, Engine]) -> None:
    """Nothing is learnt of one workload for the next, in which the same prompts may come again."""
    for engine in engines.values():
        if isinstance(engine.draft, FreeDrafter):
            engine.draft.forget()


def _in_turn(
    engines: dict[str, Engine],
    item: Item,
    temperature: float,
    number: int,
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """One prompt through every engine."""
    params = SamplingParams(
        max_tokens=options.max_tokens, temperature=temperature, seed=number, ignore_eos=True
    )
    order = list(engines)
    random.Random(number).shuffle(order)
    found: dict[str, dict[str, Any]] = {}
    for name in order:
        began = time.perf_counter()
        [result] = engines[name].generate([_prompt(item)], params)
        seconds = time.perf_counter() - began
        statistics = result.statistics
        found[name] = {
            "seconds": seconds,
            "num_tokens": len(result.token_ids),
            "num_passes": statistics.num_rounds,
            "num_drafted": statistics.num_drafted,
            "num_accepted": statistics.num_accepted,
            "accepted_per_position": statistics.accepted_per_position,
            "tested_per_position": statistics.tested_per_position,
            "is_equal": None,
            "token_ids": result.token_ids,
        }
    said = found["plain"]["token_ids"]
    for arm in found.values():
        arm["is_equal"] = arm.pop("token_ids") == said
    return {name: found[name] for name in engines}


def _first_token_s(plain: Engine, item: Item) -> float:
    """What plain decoding takes to read a prompt and say one token."""
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        plain.generate([_prompt(item)], SamplingParams(max_tokens=1, ignore_eos=True))
        times.append(time.perf_counter() - began)
    return min(times)


def _prompt(item: Item) -> Any:
    return item.prompt if isinstance(item.prompt, str) else list(item.prompt)


def _rows_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    path = Path(RESULTS) / f"{options.name}.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    settings = document.get("settings", {})
    same = all(settings.get(name) == getattr(options, name) for name in _SHARED)
    return document["rows"] if same and document else []


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the prompts of one workload at one temperature."""
    totals: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        for name, arm in row["arms"].items():
            for key in ("seconds", "num_tokens", "num_passes", "num_drafted", "num_accepted"):
                totals[name][key] += arm[key]
            totals[name]["num_other_texts"] += not arm["is_equal"]
            # Older rows have none.
            totals[name]["decode_s"] += arm["seconds"] - row.get("prompt_s", math.nan)
    plain_s, plain_decode_s = totals["plain"]["seconds"], totals["plain"]["decode_s"]
    return {
        name: {
            "speedup": round(plain_s / one["seconds"], 3),
            "decode_speedup": _rounded(plain_decode_s / one["decode_s"]),
            "tokens_per_s": round(one["num_tokens"] / one["seconds"], 1),
            "tokens_per_pass": round(one["num_tokens"] / one["num_passes"], 3),
            "drafted_per_pass": round(one["num_drafted"] / one["num_passes"], 2),
            "num_other_texts": int(one["num_other_texts"]),
        }
        for name, one in totals.items()
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def _places(rows: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    found: defaultdict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["workload"], row["temperature"]].append(row)
    return found


def _write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    document: dict[str, Any] = {
        "what": "every draft beside plain decoding, in turn; prompts included in the times",
        "environment": environment(),
        "settings": vars(options),
        "summary": [
            {"workload": workload, "temperature": temperature, "arms": _summary(some)}
            for (workload, temperature), some in _places(rows).items()
        ],
        "rows": rows,
    }
    write_result(options.name, document)


def _tell(workload: str, temperature: float, rows: list[dict[str, Any]]) -> None:
    for name, one in _summary(_places(rows)[workload, temperature]).items():
        print(
            f"{workload:10} {temperature:3}  {name:30} {one['speedup']:5.2f}x  "
            f"decoding {one['decode_speedup'] or math.nan:5.2f}x  "
            f"{one['tokens_per_s']:7.1f} tokens/s  {one['tokens_per_pass']:5.2f} a pass  "
            f"{one['drafted_per_pass']:5.2f} drafted  other texts {one['num_other_texts']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
