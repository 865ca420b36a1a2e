"""HumanEval as prompts, and programs from what a model answered."""

import re
from typing import Literal, NamedTuple, TypeAlias

from draftsmith.workloads import Item, Problem, Workload

__all__ = ["STOP_STRINGS", "Program", "PromptStyle", "as_program", "as_workload"]

PromptStyle: TypeAlias = Literal["completion", "chat"]
"""`completion` goes on from the function's head; `chat` asks for the function."""

STOP_STRINGS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert ", "\n```")
"""Where a completion has left the function (Chen et al. 2021, arXiv:2107.03374, section 2.1)."""

_REQUEST = (
    "Complete the following Python function. Reply with the whole function, its imports included, "
    "in one code block, and nothing else.\n\n```python\n{prompt}\n```"
)
_FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)


def as_workload(problems: list[Problem], style: PromptStyle) -> Workload:
    """The problems as prompts.

    Args:
        problems: In order.
        style: How to ask.
    """
    return Workload(
        "humaneval", tuple(Item(one.id, _prompt(one, style), None, "humaneval") for one in problems)
    )


class Program(NamedTuple):
    """Code of a model, and what it must pass."""

    code: str
    """Defines the function."""
    entry_point: str
    """The function's name."""
    head: str
    """What the test may use beside the function: imports, helpers."""
    test: str
    """Defines `check(candidate)`."""


def as_program(problem: Problem, text: str, style: PromptStyle) -> Program:
    """What decides whether an answer is right.

    Args:
        problem: The problem.
        text: What the model said.
        style: How it was asked.
    """
    code = problem.prompt + text if style == "completion" else _from_answer(problem, text)
    return Program(code, problem.entry_point, problem.prompt, problem.test)


def _prompt(problem: Problem, style: PromptStyle) -> str | tuple[dict[str, str], ...]:
    if style == "completion":
        return problem.prompt
    content = _REQUEST.format(prompt=problem.prompt.strip("\n"))
    return ({"role": "user", "content": content},)


def _from_answer(problem: Problem, text: str) -> str:
    """The code block that defines the function, after what the prompt has before it."""
    head = re.compile(rf"^def {re.escape(problem.entry_point)}\b", re.MULTILINE)
    blocks: list[str] = _FENCE.findall(text) or [text]
    code = next((block for block in blocks if head.search(block)), blocks[-1])
    found = head.search(problem.prompt)
    # Imports and helpers of the prompt, which answers often leave out.
    before = problem.prompt[: found.start()] if found else ""
    return code if head.search(code) is None else before + code
