r"""The server under load beside llama.cpp's server, on the same file in the same run.

    python -m benchmarks.serve                     # SmolLM2, at 1, 4 and 16 streams
    python -m benchmarks.serve --target qwen2.5-coder-1.5b-instruct \
        --draft qwen2.5-coder-0.5b-instruct --streams 4 --name serve_qwen
    python -m benchmarks.serve --resume            # goes on where the JSON of the same options ends

Two parts for each server and number of streams, over problems of HumanEval with texts of one
length. `full`: so many streams at a time, each with its next request as soon as one has ended; what
counts is tokens per second. `open`: requests come by one Poisson process for all servers, at a
share of what llama.cpp's plain server does when full, whether the earlier ones have ended or not;
what counts is the time to the first text, from when the request was due. The JSON is written after
each server.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, humaneval_prompts, write_result
from benchmarks.llamacpp import describe
from benchmarks.serve_arms import Arm, Running, Served, all_arms, started
from benchmarks.serve_client import Answer, arrivals, ask, in_turn, on_schedule, summary
from draftsmith.kernels.cpu.library import physical_cores

_PEERS = ("plain", "ngram-simple 3/8", "ngram-mod 8/8/16")
_LIGHT = ("resume", "name")
"""Options that change no number."""


def main() -> None:
    """Measure every server at every load."""
    options = _options()
    served = Served(options.target, options.draft, options.threads, options.context)
    settings = {name: value for name, value in vars(options).items() if name not in _LIGHT}
    rows = _rows_of(options.name, settings) if options.resume else []
    arms = _arms(served, options)
    for repeat, streams, arm in _parts(options, arms):
        place = {"repeat": repeat, "streams": streams, "arm": arm.name}
        if any(row.items() >= place.items() for row in rows):
            continue
        rows.append(place | _measured(arm, served, streams, options, _rate(rows, streams, options)))
        print(_line(rows[-1]), flush=True)
        _write(options.name, settings, rows)
    for line in _ratios(rows):
        print(line)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--draft", default="prompt-lookup", help="a model, or prompt-lookup")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--ours", nargs="+", default=["off", "fixed", "auto", "free"])
    parser.add_argument("--peers", nargs="*", default=list(_PEERS), help="the first is plain")
    parser.add_argument("--rounds", type=int, default=4, help="requests of each stream")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the plain peer's full load")
    parser.add_argument("--good-first", type=float, default=1.0, help="seconds")
    parser.add_argument("--good-each", type=float, default=0.1, help="seconds")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--name", default="serve", help="of the JSON")
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON has")
    return parser.parse_args()


def _arms(served: Served, options: argparse.Namespace) -> list[Arm]:
    """Those that are asked for, the one whose full load sets the rate first."""
    known = {arm.name: arm for arm in all_arms(served)}
    names = [*(f"llama.cpp {name}" for name in options.peers), *options.ours]
    return [known[name] for name in names]


def _parts(options: argparse.Namespace, arms: list[Arm]) -> Iterator[tuple[int, int, Arm]]:
    """Every server at every load; none is always behind the same other one."""
    for repeat in range(options.repeats):
        for streams in options.streams:
            first, *others = arms
            turn = repeat % max(1, len(others))
            for arm in (first, *others[turn:], *others[:turn]):
                yield repeat, streams, arm


def _rate(rows: list[dict[str, Any]], streams: int, options: argparse.Namespace) -> float | None:
    """Requests per second of the open part: the same for all servers of a load, and repeats."""
    full = next((row["full"] for row in rows if row["streams"] == streams), None)
    return None if full is None else options.share * full["requests_per_s"]


def _measured(
    arm: Arm, served: Served, streams: int, options: argparse.Namespace, rate: float | None
) -> dict[str, Any]:
    with started(arm, served, streams) as running:
        return asyncio.run(_load(arm, running, streams, options, rate))


async def _load(
    arm: Arm,
    running: Running,
    streams: int,
    options: argparse.Namespace,
    rate: float | None,
) -> dict[str, Any]:
    prompts = humaneval_prompts(164)
    count = options.rounds * streams

    def body(number: int) -> dict[str, Any]:
        prompt = prompts[number % len(prompts)]
        return arm.body(prompt, options.new_tokens, options.temperature, number)

    async def asking(number: int, due_at: float | None) -> Answer:
        return await ask(running.address, body(number), due_at)

    # What a server does once, and learns first, is not counted; of the last problems.
    await in_turn(lambda number, due: asking(163 - number, due), 2 * streams, streams)
    bars = (options.good_first, options.good_each)
    done = await in_turn(asking, count, streams)
    full = summary(done, *bars)
    due_per_s = options.share * full["requests_per_s"] if rate is None else rate
    dues = arrivals(count, due_per_s, streams)
    came = await on_schedule(lambda number, due: asking(count + number, due), dues)
    odd = [one for one in (*done, *came) if one.num_tokens != options.new_tokens]
    return {
        "full": full,
        "open": {"due_per_s": due_per_s, **summary(came, *bars)},
        "num_odd_lengths": len(odd),
        "peak_bytes": running.peak_bytes,
    }


def _rows_of(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the JSON has, if it is of the same options."""
    path = Path(RESULTS) / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document["rows"] if document.get("settings") == settings else []


def _write(name: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    document: dict[str, Any] = {
        "what": "servers under load: tokens per second when full, time to the first text when not",
        "environment": environment(),
        "peer": describe(None),
        "settings": settings,
        "medians": _medians(rows),
        "rows": rows,
    }
    write_result(name, document)


def _medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the repeats, for each load and server."""
    found: list[dict[str, Any]] = []
    for streams, arm in dict.fromkeys((row["streams"], row["arm"]) for row in rows):
        mine = [row for row in rows if (row["streams"], row["arm"]) == (streams, arm)]

        def median(part: str, *names: str, rows: list[dict[str, Any]] = mine) -> float:
            values = [row[part] for row in rows]
            for name in names:
                values = [value[name] for value in values]
            return statistics.median(values)

        found.append(
            {
                "streams": streams,
                "arm": arm,
                "tokens_per_s": median("full", "tokens_per_s"),
                "full_first_s": median("full", "first_s", "p50"),
                "open_first_s": median("open", "first_s", "p50"),
                "open_first_p99_s": median("open", "first_s", "p99"),
                "open_each_s": median("open", "each_s", "p50"),
                "open_each_p99_s": median("open", "each_s", "p99"),
                "goodput_per_s": median("open", "goodput", "requests_per_s"),
            }
        )
    return found


def _ratios(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Auto beside speculation off, and beside the best of llama.cpp's settings."""
    medians = _medians(rows)
    for streams in dict.fromkeys(row["streams"] for row in rows):
        here = {row["arm"]: row for row in medians if row["streams"] == streams}
        peers = [row for arm, row in here.items() if arm.startswith("llama.cpp")]
        for arm in (one for one in here if not one.startswith("llama.cpp")):
            told = [f"{streams} streams, {arm}: {here[arm]['tokens_per_s']:.1f} tokens/s"]
            if "off" in here and arm != "off":
                told.append(f"{here[arm]['tokens_per_s'] / here['off']['tokens_per_s']:.2f}x off")
            if peers:
                most = max(peer["tokens_per_s"] for peer in peers)
                told.append(f"{here[arm]['tokens_per_s'] / most:.2f}x llama.cpp's best")
                for name in ("full_first_s", "open_first_s"):
                    least = min(peer[name] for peer in peers)
                    told.append(f"{name} {here[arm][name] / least:.2f}x its best")
            yield ", ".join(told)


def _line(row: dict[str, Any]) -> str:
    full, come = row["full"], row["open"]
    if "tokens_per_s" not in full or "tokens_per_s" not in come:
        return f"{row['streams']:3} {row['arm']}: {full['errors']} {come['errors']}"
    return (
        f"{row['repeat']} {row['streams']:3} {row['arm']:32} {full['tokens_per_s']:7.1f} tokens/s, "
        f"first {full['first_s']['p50']:.3f} s; open: first {come['first_s']['p50']:.3f} s, "
        f"p99 {come['first_s']['p99']:.3f}, each {1000 * come['each_s']['p50']:.1f} ms, "
        f"good {come['goodput']['requests_per_s']:.2f}/s of {come['due_per_s']:.2f}"
    )


if __name__ == "__main__":
    main()
