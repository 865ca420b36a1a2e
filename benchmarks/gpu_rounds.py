"""Whole rounds on a GPU over random weights: sampled ones, gamma auto, batches, a made-up draft."""

import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu_models import SHAPES, random_weights
from draftsmith import Engine, ModelDrafter, SamplingParams
from draftsmith.engine.rounds import graphs
from draftsmith.kernels.gpu.verdicts import Bests, State
from draftsmith.models.native.gpu import GpuDecoder

__all__ = ["auto", "batches", "model", "sampled", "seconds_of", "synthetic"]

_PROMPT = list(range(100, 356))
_SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "seed": 1}
_TURNS = 3
_ALPHA = 0.8


def model(name: str) -> GpuDecoder:
    """A decoder of random weights."""
    config = SHAPES[name]
    return GpuDecoder.on_weights(random_weights(config), config, name)


def seconds_of(
    engine: Engine, num_tokens: int, prompts: list[list[int]] | None = None, **sampling: Any
) -> float:
    """Whole texts, the prompts' reading included."""
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, **sampling)
    start = time.perf_counter()
    engine.generate(prompts or [_PROMPT], params)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _medians(arms: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Of every arm, in turn; the first turn compiles and captures."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(_TURNS + 1):
        for name, arm in arms.items():
            value = arm()
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def sampled() -> dict[str, Any]:
    """Tokens a second of greedy and of sampled decoding, plain and with a draft, 1.5B and 0.5B."""
    target, drafter = model("1.5B"), ModelDrafter(model("0.5B"))
    engines = {"plain": Engine(target), "gamma 4": Engine(target, draft=drafter, gamma=4)}
    kinds = {
        "greedy": {},
        "temperature": {"temperature": 0.8, "seed": 1},
        "temperature, top-p, top-k": _SAMPLED,
    }

    def speed(engine: Engine, sampling: dict[str, Any]) -> float:
        return 128 / (seconds_of(engine, 144, **sampling) - seconds_of(engine, 16, **sampling))

    arms: dict[str, Callable[[], float]] = {
        f"{kind}, {name}": lambda engine=engine, sampling=sampling: speed(engine, sampling)
        for kind, sampling in kinds.items()
        for name, engine in engines.items()
    }
    return {name: round(value, 1) for name, value in _medians(arms).items()}


def auto() -> dict[str, Any]:
    """Gamma auto over a draft that is never right: time beside plain decoding's, by stretches."""
    target, drafter = model("1.5B"), ModelDrafter(model("0.5B"))
    plain, found = Engine(target), dict[str, Any]()
    for kind, sampling in (("greedy", {}), ("sampled", _SAMPLED)):
        ratios: dict[str, list[float]] = {"first 200 tokens": [], "tokens 200 to 1200": []}
        for turn in range(_TURNS + 1):
            # A new engine has learnt nothing.
            fresh = Engine(target, draft=drafter, gamma="auto")
            times = {
                name: _stretches(engine, sampling)
                for name, engine in (("plain", plain), ("auto", fresh))
            }
            if turn:
                for place, stretch in enumerate(ratios):
                    ratios[stretch].append(times["auto"][place] / times["plain"][place])
        found[kind] = {
            stretch: round(statistics.median(values), 4) for stretch, values in ratios.items()
        }
        print("auto", kind, found[kind], flush=True)
    return found


def _stretches(engine: Engine, sampling: dict[str, Any]) -> tuple[float, float]:
    """Seconds from the first token to the 200th, and on to the 1200th."""
    params = SamplingParams(max_tokens=1201, ignore_eos=True, **sampling)
    marks: dict[int, float] = {}
    count = 0
    for event in engine.stream(_PROMPT, params):
        count += len(event.tokens)
        now = time.perf_counter()
        for mark in (1, 200, 1200):
            if count >= mark:
                marks.setdefault(mark, now)
    return marks[200] - marks[1], marks[1200] - marks[200]


def batches() -> dict[str, Any]:
    """Tokens a second of batches, auto beside plain, over drafts that are right never and often."""
    target = model("1.5B")
    noise = 0.25 * target.weights.head.float().std() * torch.randn_like(target.weights.head)
    # The target itself with another head: as slow as it, and often right.
    like = replace(target.weights, head=(target.weights.head + noise).bfloat16())
    drafts = {
        "wrong": model("0.5B"),
        "right, slow": GpuDecoder.on_weights(like, target.config, "like"),
    }
    found: dict[str, Any] = {}
    for size in (1, 4, 16, 64):
        prompts = [[place, *_PROMPT[:64]] for place in range(size)]
        engines = {"plain": Engine(target, max_batch_size=size)}
        for name, draft in drafts.items():
            drafter = ModelDrafter(draft)
            engines[f"auto, {name}"] = Engine(
                target, draft=drafter, gamma="auto", max_batch_size=size
            )
        arms: dict[str, Callable[[], float]] = {
            name: lambda engine=engine, prompts=prompts: seconds_of(engine, 256, prompts)
            for name, engine in engines.items()
        }
        times = _medians(arms)
        found[str(size)] = {
            name: {
                "tokens_per_s": round(256 * size / value, 1),
                "of_plain": round(times["plain"] / value, 3),
            }
            for name, value in times.items()
        }
        print("batch", size, found[str(size)], flush=True)
    return found


def synthetic() -> dict[str, Any]:
    """Llama 8B's shape, gamma 5, a draft of one layer; acceptance is MADE UP: a coin of 0.8."""
    target = model("8B")
    found: dict[str, Any] = {"acceptance": f"synthetic, {_ALPHA}"}
    config = replace(SHAPES["8B"], num_layers=1, windows=(None,))
    weights = random_weights(config)
    for name, num_ids in (("1 layer", None), ("1 layer, 32,768 ids", 32_768)):
        drafter = ModelDrafter(GpuDecoder.on_weights(weights, config, name, num_ids))
        with _coins():
            engine = Engine(target, draft=drafter, gamma=5)
            speed = 512 / (seconds_of(engine, 528) - seconds_of(engine, 16))
            speeds = [512 / (seconds_of(engine, 528) - seconds_of(engine, 16)) for _ in range(3)]
        result = engine.generate([_PROMPT], SamplingParams(max_tokens=512, ignore_eos=True))[0]
        found[name] = {
            "tokens_per_s": round(statistics.median([*speeds, speed]), 1),
            "tokens_per_round": round(512 / result.statistics.num_rounds, 2),
        }
        print("synthetic", name, found[name], flush=True)
    return found


@contextmanager
def _coins() -> Generator[None]:
    """Verdicts in which a coin, and not the target, says whether a drafted token is right."""
    settle = graphs.verdicts.settle

    def tossed(
        bests: Bests, tokens: Tensor, state: State, found: Tensor, *rest: Tensor | None
    ) -> None:
        rows = tokens.shape[1]
        drafted = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1).reshape(-1)
        is_drafted = torch.arange(rows, device=tokens.device).repeat(len(tokens)) < rows - 1
        is_kept = is_drafted & (torch.rand(drafted.shape, device=tokens.device) < _ALPHA)
        highs, ids = bests.highs.clone(), bests.ids.clone()
        highs[:, 0] = torch.where(is_kept, 3e38, highs[:, 0])
        ids[:, 0] = torch.where(is_kept, drafted, ids[:, 0])
        settle(Bests(highs, ids), tokens, state, found, *rest)

    with mock.patch.object(graphs.verdicts, "settle", tossed):
        yield
