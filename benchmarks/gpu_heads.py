r"""A trained head on a GPU beside plain decoding: speed, tokens a pass, and equality of texts.

    python -m benchmarks.gpu_heads --target model.gguf --head HEAD-FOLDER
    python -m benchmarks.gpu_heads --prompts 8 --batches 1 8 --gammas 4 auto   # the shipped head

Every arm decodes the same prompts in turn, in an order that changes from turn to turn; the first
turn compiles and captures, and is not counted. A ratio is that of plain decoding in the same turn,
prompts included; the median of the turns is given, with the least and the most. The JSON is
written after each part.
"""

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import environment, write_result
from draftsmith.api import load_drafter, load_engine
from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.workloads import load_workload


def main() -> None:
    """Run all parts: workloads, temperatures, batch sizes."""
    options = _options()
    loaded = load_engine(options.target, gamma=0, device=options.device)
    start = time.perf_counter()
    head = load_drafter(options.head, loaded)
    document: dict[str, Any] = {
        "what": "a head on a GPU beside plain decoding, in turn; prompts included in the times",
        "environment": environment(),
        "device": _device_name(options.device),
        "settings": vars(options) | {"target": Path(options.target).name},
        "head": {"name": head.name, "load_and_trial_s": round(time.perf_counter() - start, 1)},
        "parts": [],
    }
    for batch in options.batches:
        arms = {
            f"gamma {gamma}" if gamma else "plain": Engine(
                loaded.target,
                loaded.tokenizer,
                head if gamma else None,
                gamma=gamma,
                max_batch_size=batch,
                prefix_caching=False,
            )
            for gamma in (0, *options.gammas)
        }
        for workload in options.workloads:
            items = load_workload(workload).first(options.prompts).items
            prompts = [
                one.prompt if isinstance(one.prompt, str) else list(one.prompt) for one in items
            ]
            for temperature in options.temperatures:
                found = _part(arms, prompts, temperature, options)
                place = {"workload": workload, "temperature": temperature, "batch": batch}
                document["parts"].append(place | {"arms": found})
                write_result(options.name, document)
                _tell(place, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--target", default="smollm2-135m-instruct", help="a name, folder or GGUF")
    parser.add_argument("--head", default="smollm2-135m-instruct-head", help="a name or a folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workloads", nargs="+", default=["humaneval", "chat"])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--gammas", type=_gamma, nargs="+", default=[2, 3, 4, 5, "auto"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--turns", type=int, default=3, help="that are counted")
    parser.add_argument("--name", default="gpu_heads", help="of the JSON")
    return parser.parse_args()


def _gamma(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _part(
    arms: dict[str, Engine], prompts: list[Any], temperature: float, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """All prompts through every arm, turn by turn."""
    params = SamplingParams(
        max_tokens=options.max_tokens, temperature=temperature, seed=7, ignore_eos=True
    )
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    results: dict[str, list[Any]] = {}
    for turn in range(options.turns + 1):
        order = list(arms)
        random.Random(turn).shuffle(order)
        for name in order:
            engine, start = arms[name], time.perf_counter()
            if engine.max_batch_size == 1:
                results[name] = [engine.generate([prompt], params)[0] for prompt in prompts]
            else:
                results[name] = engine.generate(prompts, params)
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:  # the first compiles and captures
                seconds[name].append(time.perf_counter() - start)
    said = [one.token_ids for one in results["plain"]]
    return {name: _told(results[name], said, seconds[name], seconds["plain"]) for name in arms}


def _told(
    results: list[Any], said: list[Any], seconds: list[float], plain_s: list[float]
) -> dict[str, Any]:
    """One arm's numbers."""
    counts = [one.statistics for one in results]
    num_tokens = sum(len(one.token_ids) for one in results)
    ratios = [plain / own for plain, own in zip(plain_s, seconds, strict=True)]
    positions = [one.accepted_per_position for one in counts]
    longest = max(map(len, positions))
    return {
        "tokens_per_s": round(num_tokens / statistics.median(seconds), 1),
        "of_plain": round(statistics.median(ratios), 3),
        "of_plain_least_and_most": [round(min(ratios), 3), round(max(ratios), 3)],
        "tokens_per_pass": round(num_tokens / sum(one.num_rounds for one in counts), 3),
        "drafted_per_pass": round(
            sum(one.num_drafted for one in counts) / sum(one.num_rounds for one in counts), 3
        ),
        "accepted_per_position": [
            sum(one[place] for one in positions if place < len(one)) for place in range(longest)
        ],
        "same_texts": sum(one.token_ids == text for one, text in zip(results, said, strict=True)),
        "texts": len(results),
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _tell(place: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    for name, one in found.items():
        least, most = one["of_plain_least_and_most"]
        print(
            f"{place['workload']:10} {place['temperature']:3} batch {place['batch']:<3} {name:10} "
            f"{one['tokens_per_s']:8.1f} tokens/s  {one['of_plain']:5.2f}x ({least:.2f} to "
            f"{most:.2f})  {one['tokens_per_pass']:5.2f} a pass  {one['drafted_per_pass']:5.2f} "
            f"drafted  same texts {one['same_texts']}/{one['texts']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
