"""What the target is asked: prompts as they are, or the beginnings of passages of plain text."""

from collections.abc import Sequence
from pathlib import Path

from draftsmith.errors import InvalidRequestError, ModelNotFoundError
from draftsmith.models.tokenizer import Message, Tokenizer
from draftsmith.workloads import load_workload
from draftsmith.workloads.workload import as_text

__all__ = ["asked_by", "passages_of", "spread"]

_PASSAGE = 256
"""Tokens between two beginnings that are taken from one text."""
_BEGINNING = 48


def asked_by(workloads: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    """Prompts of workloads, as tokens; a conversation in the target's own template.

    Args:
        workloads: Names that `--workload` takes, or JSONL files.
        tokenizer: The target's.
        max_length: Of a text; a prompt takes half of it at most, and its end is kept.

    Raises:
        DraftsmithError: A file is missing, or holds no prompt.
    """
    found: list[list[int]] = []
    for name in workloads:
        found += [_tokens(item.prompt, tokenizer) for item in load_workload(name).items]
    return [prompt[-(max_length // 2) :] for prompt in found if prompt]


def _tokens(prompt: str | tuple[Message, ...], tokenizer: Tokenizer) -> list[int]:
    if not tokenizer.has_chat_template:
        return tokenizer.encode(as_text(prompt))
    # A bare question is asked as a user would.
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return tokenizer.encode_chat(turns)


def passages_of(paths: Sequence[Path], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    """Beginnings of passages of text files, which the target goes on from.

    Args:
        paths: UTF-8 text.
        tokenizer: The target's.
        max_length: Of a text.

    Raises:
        ModelNotFoundError: A file cannot be read.
        InvalidRequestError: There is no text in them.
    """
    found: list[list[int]] = []
    size = min(_BEGINNING, max_length // 2)
    for path in paths:
        tokens = tokenizer.encode_plain(_read(path))
        starts = range(0, max(1, len(tokens) - size), _PASSAGE)
        found += [tokens[start : start + size] for start in starts]
    found = [passage for passage in found if passage]
    if not found:
        raise InvalidRequestError(
            f"there is no text in {', '.join(map(str, paths))}: give files with text"
        )
    return found


def spread(kinds: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """Prompts of several kinds in one order, in which each kind lies evenly.

    Args:
        kinds: Of each its prompts.

    Example:
        >>> spread([[[1], [2], [3], [4]], [[9], [8]]])
        [[1], [9], [2], [3], [8], [4]]
    """
    placed = [
        ((place + 0.5) / len(prompts), number, prompt)
        for number, prompts in enumerate(kinds)
        for place, prompt in enumerate(prompts)
    ]
    return [prompt for _, _, prompt in sorted(placed, key=lambda one: one[:2])]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelNotFoundError(f"text {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"text {path} is not UTF-8 text: save it as such") from error
