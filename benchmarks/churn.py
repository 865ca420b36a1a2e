"""Requests that come and go from many threads: every text its reference, nothing left behind.

    python -m benchmarks.churn                     # ten minutes, writes results/churn.json
    python -m benchmarks.churn --minutes 1         # a look

Eight threads share one engine. Each puts in eight requests at a time, follows them, and cancels
some of them on the way, at random. A text that was let finish must be the one that the request has
alone, plainly decoded; one that was cancelled, its beginning. Memory is read when everything is
collected, what the engine keeps of ended texts was given back, and malloc has given back what it
keeps for itself, so that only what is held counts.
"""

import argparse
import ctypes
import gc
import random
import resource
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.common import environment, write_result
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Generation
from draftsmith.models.load import load_model

_MODEL = "smollm2-135m-instruct"
_NUM_THREADS = 8
_NUM_REQUESTS = 8
"""Of each thread at a time."""
_NUM_TEXTS = 64
_CANCELLED = 0.3
_MOST_MORE_MB = 16
"""That a part may end with beyond what it held after its first texts: the pages between what lives
on, which no heap gives back, and threads' own arenas. One text's keys and values that stayed would
be 11 MB in 250 tokens, and every text's hundreds."""
_PARAMS = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=48, ignore_eos=True)


@dataclass
class Counts:
    """What has come of all requests so far."""

    finished: int = 0
    cancelled: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Counts") -> None:
        """Count another's too."""
        self.finished += other.finished
        self.cancelled += other.cancelled
        self.wrong += other.wrong
        self.errors += other.errors


def main() -> None:
    """Run, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    model = load_model(_MODEL)
    requests = _requests(random.Random(0))
    plain = Engine(model)
    references = [plain.generate(p, params)[0].token_ids for p, params in requests]
    drafts: dict[str, Drafter | None] = {
        "plain": None,
        "prompt lookup": PromptLookupDrafter(),
        "the target itself": ModelDrafter(model),
    }
    parts: list[dict[str, object]] = []
    for name, draft in drafts.items():
        engine = Engine(model, draft=draft, gamma=4 if draft else 0, max_batch_size=16)
        # Each thread ends its first texts, 64 in all: what is kept for good is there by then.
        _run(engine, requests, references, 5.0)
        engine.reset_prefix_cache()
        before = _resident_mb()
        counts = _run(engine, requests, references, 60 * options.minutes / len(drafts))
        kept = engine.cache_statistics()
        engine.reset_prefix_cache()
        after = _resident_mb()
        part: dict[str, object] = {
            "draft": name,
            "finished": counts.finished,
            "cancelled": counts.cancelled,
            "wrong": counts.wrong,
            "errors": counts.errors[:8],
            "resident_mb_before": before,
            "resident_mb_after": after,
            "most_more_mb": _MOST_MORE_MB,
            "is_memory_back": after - before <= _MOST_MORE_MB,
            "left_in_the_engine": engine.scheduler.num_held,
            "cache": kept._asdict(),
        }
        parts.append(part)
        print(part, flush=True)
        write_result(
            "churn",
            {
                "environment": environment(),
                "minutes": options.minutes,
                "threads": _NUM_THREADS,
                "requests": _NUM_THREADS * _NUM_REQUESTS,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                "parts": parts,
            },
        )


def _requests(chance: random.Random) -> list[tuple[list[int], SamplingParams]]:
    """Prompts of many lengths, each with a seed of its own."""
    made: list[tuple[list[int], SamplingParams]] = []
    for seed in range(_NUM_TEXTS):
        prompt = [chance.randrange(100, 5000) for _ in range(chance.choice((3, 20, 60, 200)))]
        made.append((prompt + prompt[:4], replace(_PARAMS, seed=seed)))
    return made


def _run(
    engine: Engine,
    requests: list[tuple[list[int], SamplingParams]],
    references: list[tuple[int, ...]],
    seconds: float,
) -> Counts:
    """All threads until the time is up."""
    end = time.monotonic() + seconds
    total, lock = Counts(), threading.Lock()

    def work(number: int) -> None:
        chance = random.Random(number)
        mine = Counts()
        try:
            while time.monotonic() < end:
                chosen = [chance.randrange(_NUM_TEXTS) for _ in range(_NUM_REQUESTS)]
                prompts, params = zip(*(requests[one] for one in chosen), strict=True)
                run = engine.start(list(prompts), list(params))
                _follow(run, [references[one] for one in chosen], chance, mine)
        except BaseException as error:  # counted, and shown
            mine.errors.append(f"{type(error).__name__}: {error}")
        with lock:
            total.add(mine)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total


def _follow(
    run: Generation, references: list[tuple[int, ...]], chance: random.Random, counts: Counts
) -> None:
    """Take events until all have ended, or until chance ends them."""
    is_cut = chance.random() < _CANCELLED
    patience = chance.randrange(1, 40 * _NUM_REQUESTS)
    for number, _ in enumerate(run):
        if is_cut and number == patience:
            list(run.abort())
            break
    for result, reference in zip(run.results(), references, strict=True):
        is_over = result.finish_reason == "length"
        expected = reference if is_over else reference[: len(result.token_ids)]
        counts.finished += is_over
        counts.cancelled += not is_over
        counts.wrong += result.token_ids != expected


def _resident_mb() -> int:
    """What is held, once everything is collected and malloc keeps nothing back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


if __name__ == "__main__":
    main()
