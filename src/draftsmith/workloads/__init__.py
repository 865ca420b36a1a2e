"""What is generated for in a measurement: shipped prompts, HumanEval, or the user's own."""

from draftsmith.workloads.humaneval import Problem, humaneval_problems
from draftsmith.workloads.workload import WORKLOADS, Item, Workload, load_workload

__all__ = [
    "WORKLOADS",
    "Item",
    "Problem",
    "Workload",
    "humaneval_problems",
    "load_workload",
]
