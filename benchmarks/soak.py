"""A server at mixed load for a quarter of an hour: every seeded answer equals its reference text.

    python -m benchmarks.soak                      # 15 minutes, writes results/soak.json
    python -m benchmarks.soak --minutes 1          # a look

Clients come and go in waves, with requests of every kind: short and long prompts, greedy and
sampled, penalties, biases, stop strings, predictions, gammas of their own, some that are refused,
and some whose client goes away in mid-stream. The references are what a server that never drafts
answers to each request alone. The cache is too small for all, so that texts make way for others.
"""

import argparse
import asyncio
import json
import math
import random
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import environment, humaneval_prompts, write_result
from benchmarks.serve_arms import Arm, Running, Served, started
from benchmarks.serve_client import ask
from draftsmith.kernels.cpu.library import physical_cores

_PLAIN = Arm("reference", ("--draft", "none", "--no-prefix-caching"))
_SOAKED = Arm("soaked", ("--gamma", "auto", "--cache-tokens", "12288"))
_STREAMS = 24
_PLACES = 16
_WAVE_S = 60.0
"""Busy in its first half, quiet in its second."""
_CANCELLED = 0.15
_REFUSED = 0.05
_FILLING = 1 / 3
"""Of the time, until caches, pools and past texts have grown to what they are allowed."""
_MOST_MORE_MB = 32
"""Beyond what the server held by then, once all have gone: a leak goes on."""


@dataclass
class Counts:
    """What has come of all requests so far."""

    equal: int = 0
    cancelled: int = 0
    refused: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    errors: list[str] = field(default_factory=list[str])
    num_tokens: int = 0


def main() -> None:
    """Run, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--requests", type=int, default=96, help="different ones")
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=physical_cores())
    options = parser.parse_args()
    served = Served(options.target, "free", options.threads, 2048)
    bodies = _bodies(random.Random(0), options.requests)
    with started(_PLAIN, served, 1) as running:
        references = asyncio.run(_references(running, bodies))
    with started(_SOAKED, served, _PLACES) as running:
        document = asyncio.run(_soak(running, bodies, references, 60 * options.minutes))
    document = {"environment": environment(), "settings": vars(options), **document}
    print(json.dumps({key: document[key] for key in ("counts", "memory_mb", "is_good")}))
    write_result("soak", document)


def _bodies(source: random.Random, count: int) -> list[dict[str, Any]]:
    """Requests of all kinds, each with a seed."""
    problems = humaneval_prompts(164)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.8, "top_p": 0.95},
        {"temperature": 1.0, "top_k": 40, "min_p": 0.02},
        {"temperature": 0.7, "repetition_penalty": 1.1},
        {"temperature": 0.7, "presence_penalty": 0.5, "frequency_penalty": 0.5},
        {"temperature": 0.9, "logit_bias": {"28": 2.0, "30": -100.0}},
        {"temperature": 0.6, "stop": ["\n\n", "return"]},
        {"temperature": 0.8, "speculation": {"gamma": 8, "draft": "prompt-lookup"}},
        {"temperature": 0.8, "speculation": {"gamma": 0}},
    ]
    found: list[dict[str, Any]] = []
    for number in range(count):
        # Some share a long beginning with others.
        shots = problems[: source.choice((0, 0, 0, 2, 5))]
        prompt = "\n".join((*shots, source.choice(problems)))
        lengths = {"max_tokens": source.choice((1, 8, 32, 64, 96)), "seed": number}
        body = {"prompt": prompt, **lengths, **kinds[number % len(kinds)]}
        if number % 11 == 0:
            body.pop("speculation", None)
            body["prediction"] = {"type": "content", "content": source.choice(problems)}
        found.append(body)
    return found


async def _references(running: Running, bodies: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for body in bodies:
        plain = {name: value for name, value in body.items() if name != "prediction"}
        answer = await ask(running.address, plain | {"speculation": {"gamma": 0}})
        if answer.error is not None:
            raise RuntimeError(f"no reference for {body}: {answer.error}")
        found.append(answer.text)
    return found


async def _soak(
    running: Running, bodies: list[dict[str, Any]], references: list[str], seconds: float
) -> dict[str, Any]:
    counts, memory = Counts(), list[float]()
    start = time.monotonic()
    process = psutil.Process(_server_of(running))

    def is_over() -> bool:
        return time.monotonic() > start + seconds

    async def client(number: int) -> None:
        source = random.Random(number)
        while not is_over():
            await _one(running, bodies, references, source, counts)
            phase = (time.monotonic() - start) % _WAVE_S / _WAVE_S
            await asyncio.sleep(source.expovariate(20.0 if phase < 0.5 else 0.5))

    async def watcher() -> None:
        while not is_over():
            await asyncio.sleep(min(_WAVE_S, seconds / 4))
            memory.append(process.memory_info().rss / 2**20)

    await asyncio.gather(watcher(), *(client(number) for number in range(_STREAMS)))
    await asyncio.sleep(2)
    memory.append(process.memory_info().rss / 2**20)
    left = _get(running, "/stats")
    wanted = (left["num_running"], left["num_waiting"], left["cache"]["num_held"])
    told = {**vars(counts), "wrong": counts.wrong[:5], "errors": counts.errors[:5]}
    return {
        "counts": told | {"num_wrong": len(counts.wrong), "num_errors": len(counts.errors)},
        "memory_mb": memory,
        "stats": left,
        "is_good": not counts.wrong
        and not counts.errors
        and wanted == (0, 0, 0)
        and memory[-1] - memory[int(_FILLING * len(memory))] <= _MOST_MORE_MB,
    }


async def _one(
    running: Running,
    bodies: list[dict[str, Any]],
    references: list[str],
    source: random.Random,
    counts: Counts,
) -> None:
    """Ask one request, and see that its answer is what it must be."""
    number = source.randrange(len(bodies))
    lot = source.random()
    if lot < _REFUSED:
        answer = await ask(running.address, bodies[number] | {"top_p": 7})
        counts.refused += 1
        if "status 400" not in (answer.error or ""):
            counts.errors.append(f"no refusal: {answer}")
        return
    timeout = source.uniform(0.01, 1.0) if lot < _REFUSED + _CANCELLED else math.inf
    try:
        async with asyncio.timeout(None if timeout == math.inf else timeout):
            answer = await ask(running.address, bodies[number])
    except TimeoutError:
        counts.cancelled += 1
        return
    if answer.error is not None:
        counts.errors.append(answer.error)
    elif answer.text != references[number]:
        one = {"body": json.dumps(bodies[number])[-300:], "text": answer.text}
        counts.wrong.append(one | {"reference": references[number]})
    else:
        counts.equal += 1
        counts.num_tokens += answer.num_tokens


def _server_of(running: Running) -> int:
    """The process that holds the model: the one that was started."""
    name = Path(f"/proc/{running.process.pid}/cmdline").read_text(encoding="utf-8")
    assert "draftsmith" in name
    return running.process.pid


def _get(running: Running, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(running.address + path) as response:
        return json.load(response)


if __name__ == "__main__":
    main()
