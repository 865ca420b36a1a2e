"""`draftsmith demo`: the same text with and without speculation, side by side."""

import statistics
import time
from typing import TYPE_CHECKING

from draftsmith.cli.exits import NOT_THE_SAME
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import MaxTokens
from draftsmith.cli.runtime import DEFAULT_MODELS, ModelOptions
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.result import GenerationResult

__all__ = ["demo"]

_REPEATS = 3
_PROMPT = """\
Copy this Python class, and rename the class to Inventory. Change nothing else.

```python
class Stock:
    def __init__(self):
        self.items = {}

    def add(self, name, count):
        if count < 1:
            raise ValueError("count must be positive")
        self.items[name] = self.items.get(name, 0) + count

    def remove(self, name, count):
        if self.items.get(name, 0) < count:
            raise ValueError("not enough in stock")
        self.items[name] = self.items[name] - count

    def total(self):
        return sum(self.items.values())
```
"""


def demo(
    *,
    models: ModelOptions = DEFAULT_MODELS,
    max_tokens: MaxTokens = 160,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Generate once plainly and once with speculation, and compare.

    Parameters
    ----------
    max_tokens
        The longest output.
    """
    messages.apply()
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine

    params = SamplingParams(max_tokens=max_tokens)
    models.check()
    if models.draft == "none":
        raise InvalidRequestError("--draft none drafts nothing to compare with: give a draft")
    if not models.num_drafted:
        raise InvalidRequestError("gamma must be 1 or more for a comparison, got 0: raise it")
    engine = models.load()
    plain_engine = Engine(engine.target, engine.tokenizer, gamma=0, prefix_caching=False)
    _run(plain_engine, SamplingParams(max_tokens=4))
    plain, fast = [], []
    # Interleaved: whatever else the machine does meets both alike.
    for _ in range(_REPEATS):
        plain.append(_run(plain_engine, params))
        fast.append(_run(engine, params))
    _show(engine, models, plain, fast)


def _run(engine: "Engine", params: "SamplingParams") -> tuple["GenerationResult", float]:
    """A result and its tokens per second."""
    start = time.perf_counter()
    result = engine.generate([{"role": "user", "content": _PROMPT}], params)[0]
    return result, len(result.token_ids) / (time.perf_counter() - start)


def _show(
    engine: "Engine",
    models: ModelOptions,
    plain: list[tuple["GenerationResult", float]],
    fast: list[tuple["GenerationResult", float]],
) -> None:
    from rich.table import Table

    from draftsmith.cli.report import coloured, console, legend

    out = console()
    result = fast[0][0]
    assert engine.tokenizer is not None
    out.print(coloured(result.completions[0], engine.tokenizer), end="\n\n")
    legend(out)
    out.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    is_same = all(one.token_ids == plain[0][0].token_ids for one, _ in [*plain, *fast])
    for row in _rows(models, result, plain, fast, is_same=is_same):
        table.add_row(*row)
    out.print(table)
    if not is_same:
        raise SystemExit(NOT_THE_SAME)


def _rows(
    models: ModelOptions,
    result: "GenerationResult",
    plain: list[tuple["GenerationResult", float]],
    fast: list[tuple["GenerationResult", float]],
    *,
    is_same: bool,
) -> list[tuple[str, str]]:
    """The table: names and values."""
    plain_speed = statistics.median(speed for _, speed in plain)
    fast_speed = statistics.median(speed for _, speed in fast)
    counts = result.statistics
    return [
        ("target, draft", f"{models.target}, {models.drafted_by} (gamma {models.num_drafted})"),
        ("plain", f"{plain_speed:.1f} tok/s"),
        ("speculative", f"{fast_speed:.1f} tok/s ({fast_speed / plain_speed:.2f}x)"),
        ("same text", "yes" if is_same else "NO"),
        ("alpha", _number(counts.alpha)),
        ("tokens per pass", _number(counts.tokens_per_pass)),
        ("accepted per position", " ".join(map(_number, counts.acceptance_per_position)) or "-"),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
