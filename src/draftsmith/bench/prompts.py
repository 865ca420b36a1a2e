"""Prompts of a workload as a model reads them."""

from collections.abc import Mapping

from draftsmith.models.tokenizer import Tokenizer
from draftsmith.workloads import Workload
from draftsmith.workloads.workload import as_text

__all__ = ["encode"]


def encode(workload: Workload, tokenizer: Tokenizer | None) -> tuple[list[list[int]], bool]:
    """Token ids of every item, and whether conversations were written as plain text.

    They are, for want of a chat template.
    """
    assert tokenizer is not None
    is_flattened = not tokenizer.has_chat_template and any(
        not isinstance(item.prompt, str) for item in workload.items
    )
    return [_ids(item.prompt, tokenizer) for item in workload.items], is_flattened


def _ids(prompt: "str | tuple[Mapping[str, str], ...]", tokenizer: Tokenizer) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    if tokenizer.has_chat_template:
        return tokenizer.encode_chat(prompt)
    return tokenizer.encode(as_text(prompt))
