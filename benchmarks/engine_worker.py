"""One checkout's side of `benchmarks.engine_speed`: arms come as lines of JSON, seconds go back.

Imports nothing but draftsmith, whichever the interpreter that runs it has.
"""

import json
import sys
import time
from inspect import signature
from typing import Any

from draftsmith import Engine, PromptLookupDrafter, SamplingParams
from draftsmith.models.contract import Rows
from draftsmith.models.load import load_model


def main() -> None:
    """Answer every arm of standard input with its seconds."""
    model = load_model(sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        arm = json.loads(line)
        seconds = _pass(model, arm) if "width" in arm else _run(model, arm)
        print(json.dumps(seconds), flush=True)


def _run(model: Any, arm: dict[str, Any]) -> float:
    """Seconds of whole texts, but for what one token of each takes: prompts are no matter here."""
    draft = PromptLookupDrafter() if arm["gamma"] else None
    # Prompts are read in both texts; an older checkout knows nothing else.
    apart: dict[str, Any] = (
        {"prefix_caching": False} if "prefix_caching" in signature(Engine).parameters else {}
    )
    size = len(arm["prompts"])
    engine = Engine(model, draft=draft, gamma=arm["gamma"], max_batch_size=size, **apart)
    seconds = []
    for num_tokens in (1, 1 + arm["num_tokens"]):
        params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, **arm["sampling"])
        started = time.perf_counter()
        engine.generate(arm["prompts"], params)
        seconds.append(time.perf_counter() - started)
    return seconds[1] - seconds[0]


def _pass(model: Any, arm: dict[str, Any]) -> float:
    """Seconds of one pass over a batch of sequences that hold a prompt each, the median of nine."""
    cache = model.open_cache()
    rows = [cache.add() for _ in arm["prompts"]]
    for row, prompt in zip(rows, arm["prompts"], strict=True):
        model.prefill(cache, row, prompt)
    tokens = [prompt[: arm["width"]] for prompt in arm["prompts"]]
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        model.forward(cache, Rows(rows, tokens))
        seconds.append(time.perf_counter() - started)
        for row, prompt in zip(rows, arm["prompts"], strict=True):
            cache.rollback(row, len(prompt))
    return sorted(seconds)[4]


if __name__ == "__main__":
    main()
