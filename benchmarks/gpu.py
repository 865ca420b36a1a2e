"""Decoding on one GPU: bandwidth, passes over 1 to 16 rows, whole rounds, and peers in turn.

    python -m benchmarks.gpu                  # writes results/gpu.json after each part; 5 minutes
    python -m benchmarks.gpu --parts passes rounds
    python -m benchmarks.gpu --resume         # goes on where the JSON ends

Weights are random, of the shapes of Qwen2.5 0.5B and 1.5B and of Llama 8B: what a pass takes does
not depend on them. A draft of random weights is never right, so that tokens a second with a draft
are rounds a second; what a round would bring follows from its length and any acceptance. The part
`pair` is the real one: Qwen2.5-Coder 1.5B and 0.5B, pulled by the catalogue's names.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import RESULTS, environment, write_result
from benchmarks.gpu_models import SHAPES, adapted, plain_decoder
from benchmarks.gpu_pair import pair
from benchmarks.gpu_rounds import auto, batches, model, sampled, synthetic
from draftsmith import Engine, ModelDrafter, SamplingParams
from draftsmith.engine.rounds.graphed import GraphedRounds
from draftsmith.models.native.gpu import GpuDecoder

_ROWS = (1, 2, 4, 5, 8, 16)
_PROMPT = list(range(100, 356))
_TOKENS = 128
_GAMMA = 4
_TURNS = 3


def milliseconds(run: Callable[[], object], times: int = 10) -> float:
    """The median of five runs of so many each, by events on the device."""
    run()
    torch.cuda.synchronize()
    found: list[float] = []
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(times):
            run()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / times)
    return statistics.median(found)


def bandwidth() -> dict[str, float]:
    """A copy from the device to itself, bytes read and written."""
    one = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(one)
    return {"copy_tb_per_s": round(2 * 2**31 / milliseconds(lambda: other.copy_(one), 5) / 1e9, 3)}


@torch.inference_mode()
def passes(copy: float) -> dict[str, Any]:
    """A captured pass over 1 to 16 rows of one sequence of 300 tokens, alone."""
    found: dict[str, Any] = {}
    for name in SHAPES:
        target = model(name)
        cache = target.open_cache()
        cache.add()
        cache.reserve(0, 512)
        times: dict[int, float] = {}
        for rows in _ROWS:
            replay, packed = target.captured_pass(1, rows, 512)
            packed[0], packed[1] = 300, rows
            times[rows] = milliseconds(replay)
        num_bytes = target.weights.num_bytes_per_pass
        found[name] = {
            "ms": {rows: round(time, 4) for rows, time in times.items()},
            "share_of_copy": round(num_bytes / copy / 1e9 / times[1], 4),
            "t8_over_t1": round(times[8] / times[1], 3),
            "t16_over_t1": round(times[16] / times[1], 3),
        }
        print(name, found[name], flush=True)
        del target, cache
        torch.cuda.empty_cache()
    return found


def seconds(engine: Engine, num_tokens: int) -> float:
    """One greedy text, the prompt's reading included."""
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
    start = time.perf_counter()
    engine.generate([_PROMPT], params)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def tokens_per_s(engine: Engine, num_tokens: int = _TOKENS) -> float:
    """Of the tokens after the first few: a short text's time goes off that of a long one."""
    return num_tokens / (seconds(engine, num_tokens + 16) - seconds(engine, 16))


def rounds() -> dict[str, Any]:
    """Whole texts: captured rounds, the plain path, the plain decoder, without and with a draft."""
    found: dict[str, Any] = {}
    draft = model("0.5B")
    for name in SHAPES:
        target = draft if name == "0.5B" else model(name)
        arms = {"captured rounds": Engine(target), "captured passes": Engine(target)}
        if name == "1.5B":
            drafter = ModelDrafter(draft)
            for kind in tuple(arms):
                arms[f"{kind}, gamma {_GAMMA}"] = Engine(target, draft=drafter, gamma=_GAMMA)
            arms["plain torch"] = Engine(plain_decoder(target))
        found[name] = _in_turn(arms)
        print(name, found[name], flush=True)
        del arms
        if target is not draft:
            del target
        torch.cuda.empty_cache()
    return found


def _in_turn(arms: dict[str, Engine]) -> dict[str, Any]:
    """Tokens a second of each, medians over the turns."""
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    captured = GraphedRounds.run
    for turn in range(_TURNS + 1):
        for name, engine in arms.items():
            if "passes" in name:
                GraphedRounds.run = lambda *_, **__: None  # the plain path, over captured passes
            speed = tokens_per_s(engine, 32 if "torch" in name else _TOKENS)
            GraphedRounds.run = captured
            if turn:  # the first compiles and captures
                speeds[name].append(speed)
    return {name: round(statistics.median(found), 1) for name, found in speeds.items()}


def peer() -> dict[str, Any]:
    """`transformers` on weights of the same shapes: its plain loop, and its assisted generation."""
    target, draft = adapted("1.5B"), adapted("0.5B")
    ids = torch.tensor([_PROMPT], device="cuda")
    common = {"do_sample": False, "max_new_tokens": 48, "min_new_tokens": 48}
    arms: dict[str, dict[str, Any]] = {
        "generate": {},
        "assisted, gamma 4": {"assistant_model": draft},
    }
    draft.generation_config.num_assistant_tokens = _GAMMA
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(_TURNS + 1):
        for name, options in arms.items():
            start = time.perf_counter()
            target.generate(ids, attention_mask=torch.ones_like(ids), **common, **options)
            torch.cuda.synchronize()
            if turn:
                found[name].append(48 / (time.perf_counter() - start))
    return {name: round(statistics.median(speeds), 1) for name, speeds in found.items()}


def texts() -> dict[str, Any]:
    """Same seed, same text: batches of 1, 4, 16 and 64, with a draft that is right now and then."""
    target = model("0.5B")
    noise = 0.3 * target.weights.head.float().std() * torch.randn_like(target.weights.head)
    like = replace(target.weights, head=target.weights.head + noise.bfloat16())
    drafter = ModelDrafter(GpuDecoder.on_weights(like, target.config, "draft"))
    prompts = [list(range(7 * k, 7 * k + 3 + 5 * k % 90)) for k in range(64)]
    found: dict[str, Any] = {}
    for name, sampling in (("greedy", {}), ("seeded", {"temperature": 0.8, "top_p": 0.95})):
        params = [
            SamplingParams(max_tokens=24, ignore_eos=True, seed=k, **sampling) for k in range(64)
        ]
        want, same, alphas = None, 0, list[float]()
        for batch, gamma in ((1, 0), (4, 0), (16, 0), (64, 0), (1, 4), (16, 4), (64, 4)):
            engine = Engine(target, draft=drafter, gamma=gamma, max_batch_size=batch)
            results = engine.generate(prompts, params)
            ids = [result.token_ids for result in results]
            want = want or ids
            same += sum(one == other for one, other in zip(ids, want, strict=True))
            alphas += [result.statistics.alpha or 0 for result in results if gamma]
        found[name] = {"texts": 7 * 64, "equal": same, "alpha": round(statistics.mean(alphas), 3)}
        print(name, found[name], flush=True)
    return found


def first_token() -> dict[str, float]:
    """From weights on the device to the first token and to the first captured round, compiling."""
    target = model("1.5B")
    start = time.perf_counter()
    engine = Engine(target)
    engine.generate([_PROMPT], SamplingParams(max_tokens=1, ignore_eos=True))
    first = time.perf_counter() - start
    engine.generate([_PROMPT], SamplingParams(max_tokens=8, ignore_eos=True))
    return {"first_token_s": round(first, 2), "captured_s": round(time.perf_counter() - start, 2)}


def _save(document: dict[str, Any], part: str, found: dict[str, Any]) -> None:
    write_result("gpu", document | {part: found})


_ROUNDS: dict[str, Callable[[], dict[str, Any]]] = {
    "sampled": sampled,
    "auto": auto,
    "batches": batches,
    "synthetic": synthetic,
}


def main() -> None:
    """Measure each part, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = (
        "first_token",
        "bandwidth",
        "passes",
        "rounds",
        "sampled",
        "auto",
        "batches",
        "synthetic",
        "texts",
        "peer",
        "pair",
    )
    parser.add_argument("--parts", nargs="+", choices=known, default=known)
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON has")
    options = parser.parse_args()
    document: dict[str, Any] = {"environment": environment(), "gpu": torch.cuda.get_device_name()}
    path = Path(RESULTS) / "gpu.json"
    if options.resume and path.exists():
        document |= json.loads(path.read_text(encoding="utf-8"))
    for part in options.parts:
        if part in document:
            continue
        match part:
            case "first_token":
                document[part] = first_token()
            case "bandwidth":
                document[part] = bandwidth()
            case "passes":
                document.setdefault("bandwidth", bandwidth())
                document[part] = passes(document["bandwidth"]["copy_tb_per_s"])
            case "rounds":
                document[part] = rounds()
            case "texts":
                document[part] = texts()
            case "peer":
                document[part] = peer()
            case "pair":
                document[part] = pair(partial(_save, document, part))
            case _:
                document[part] = _ROUNDS[part]()
        torch.cuda.empty_cache()
        print(part, document[part], flush=True)
        write_result("gpu", document)


if __name__ == "__main__":
    main()
