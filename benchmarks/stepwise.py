"""A long benchmark in steps: each is kept as it is measured, and a run that was cut off goes on."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from draftsmith.report.document import write_json

__all__ = ["Kept", "Step", "run_steps"]


class Step(NamedTuple):
    """One measurement."""

    name: str
    measure: Callable[[], Any]
    """Gives what JSON can hold."""


class Kept:
    """The steps that were measured so far, in a file beside the result.

    Args:
        path: The file; it is removed when the run is whole.
        key: What two runs must share to be one: settings, machine, versions, commit. A file of
            another key is begun anew.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._path = path
        self._key = json.loads(json.dumps(key))
        self.steps: dict[str, dict[str, Any]] = self._read()
        """By name: its result, and what it took."""

    def put(self, name: str, result: object, seconds: float, load: float) -> None:
        """Keep a step, on the disk before anything else is measured."""
        measured = {"result": result, "seconds": round(seconds, 1), "load_before": round(load, 2)}
        # As a file gives it back, so that a run that goes on and one in one piece are the same.
        self.steps[name] = json.loads(json.dumps(measured))
        write_json(self._path, {"key": self._key, "steps": self.steps})

    def close(self) -> None:
        """The result is written: forget the steps."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        is_ours = isinstance(found, dict) and found.get("key") == self._key
        return dict(found["steps"]) if is_ours else {}


def run_steps(
    steps: Sequence[Step],
    kept: Kept,
    expected: Mapping[str, float],
    say: Callable[[str], None] = print,
) -> None:
    """Measure what is not kept yet, in order, and say before each step how much is left.

    Args:
        steps: All of them.
        kept: Where they are kept.
        expected: Seconds of each step elsewhere: their shares give the estimate.
        say: Told a line for each step.
    """
    for number, step in enumerate(steps, start=1):
        where = f"{step.name} ({number} of {len(steps)}"
        if step.name in kept.steps:
            say(f"{where}, kept from the run before)")
            continue
        say(f"{where}, {outlook(steps, kept, expected)})")
        began, load = time.perf_counter(), os.getloadavg()[0]
        result = step.measure()
        kept.put(step.name, result, time.perf_counter() - began, load)


def outlook(steps: Sequence[Step], kept: Kept, expected: Mapping[str, float]) -> str:
    """How long the steps that are left will take, such as "about 12 min left".

    Example:
        >>> outlook([], Kept(Path("nowhere.json"), {}), {})
        'about 0 min left'
    """
    usual = sum(expected.values()) / len(expected) if expected else 60.0
    left = sum(expected.get(one.name, usual) for one in steps if one.name not in kept.steps)
    taken = sum(one["seconds"] for one in kept.steps.values())
    there = sum(expected.get(name, usual) for name in kept.steps)
    pace = taken / there if there else 1.0
    return f"about {left * pace / 60:.0f} min left"
