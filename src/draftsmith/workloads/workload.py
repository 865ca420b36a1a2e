"""Workloads by name or by file."""

import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message
from draftsmith.workloads.humaneval import humaneval_problems
from draftsmith.workloads.lines import Item, read_items

__all__ = ["WORKLOADS", "Item", "Workload", "as_text", "load_workload"]

_SHIPPED = ("chat", "edit", "summarise")
_EACH_OF_MIX = 4
WORKLOADS = ("default", *_SHIPPED, "humaneval")
"""What `load_workload` knows by name."""


@dataclass(frozen=True)
class Workload:
    """Prompts of one kind."""

    name: str
    items: tuple[Item, ...]

    def first(self, count: int | None) -> "Workload":
        """The first `count` items; None is all of them.

        Raises:
            InvalidRequestError: If there are not so many.
        """
        if count is None:
            return self
        if not 1 <= count <= len(self.items):
            raise InvalidRequestError(
                f"workload {self.name} has {len(self.items)} prompts: ask for 1 to "
                f"{len(self.items)}, not {count}"
            )
        return Workload(self.name, self.items[:count])


def load_workload(reference: str) -> Workload:
    """Load prompts.

    Args:
        reference: `humaneval` (code to be completed), `chat` (questions), `summarise` (texts),
            `edit` (files with a change to make), `default` (a few of the last three, in turn); or
            the path of a JSONL file, each line with `prompt` (a text) or `messages` (a
            conversation), and perhaps `id`, `task` and `max_tokens`; other keys are not read.

    Raises:
        ModelNotFoundError: If `humaneval` is asked for and its wheel is not installed.
        InvalidRequestError: If nothing has that name, or the file is empty, or a line is not an
            item; the message names file and line.

    Example:
        >>> load_workload("edit").items[0].task
        'edit'
    """
    if reference == "humaneval":
        problems = humaneval_problems()
        items = (Item(one.id, one.prompt, None, "humaneval") for one in problems)
        return Workload(reference, tuple(items))
    if reference == "default":
        kinds = [_shipped(name)[:_EACH_OF_MIX] for name in _SHIPPED]
        return Workload(reference, tuple(chain.from_iterable(zip(*kinds, strict=True))))
    if reference in _SHIPPED:
        return Workload(reference, _shipped(reference))
    path = Path(reference)
    if not path.is_file():
        raise InvalidRequestError(_unknown(reference))
    return Workload(path.name, _own(path))


def as_text(prompt: str | tuple[Message, ...]) -> str:
    """A conversation as plain text, for a model without a chat template."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(turn["content"] for turn in prompt) + "\n\n"


def _shipped(name: str) -> tuple[Item, ...]:
    file = importlib.resources.files("draftsmith.workloads") / "data" / f"{name}.jsonl"
    return read_items(file.read_text(encoding="utf-8").splitlines(), f"workload {name}", name)


def _own(path: Path) -> tuple[Item, ...]:
    try:
        lines = list(_decoded(path))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidRequestError(f"workload {path} cannot be read: {why}") from error
    return read_items(lines, f"workload {path}", path.stem)


def _decoded(path: Path) -> Iterator[str]:
    # Not by `splitlines`, which would also cut at a U+2028 inside a string.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"workload {path}, line {number}: not UTF-8 text") from error


def _unknown(reference: str) -> str:
    near = get_close_matches(reference, WORKLOADS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    if "/" in reference or reference.endswith((".jsonl", ".json")):
        return f"workload file {reference} does not exist, or is no file: check the path"
    return f"no workload {reference!r}: {hint}choose {', '.join(WORKLOADS)}, or a JSONL file"
