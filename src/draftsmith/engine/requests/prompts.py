"""Prompts in every shape that callers have them in, as text, ids or a conversation.

Libraries hand out ids as tensors, as arrays, and (chat templates in transformers 5) as a mapping
with a mask. What each of them means is decided here, once; what could mean two things is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from draftsmith.core.values import is_whole
from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message

__all__ = ["PlainPrompt", "Prompt", "Prompts", "plain_prompts"]

PlainPrompt: TypeAlias = str | list[int] | list[Message]
"""Text, token ids, or a conversation."""

Prompt: TypeAlias = str | Sequence[int] | Sequence[Message] | Mapping[str, Any] | Any
"""A `PlainPrompt`; or its ids as a tensor, an array, or a tokenizer's mapping of one row."""

Prompts: TypeAlias = Prompt | Sequence[Prompt]

_HOW = "give text, token ids, or a list of messages"
_MASKS = ("attention_mask", "token_type_ids")
"""What a tokenizer's mapping may hold beside the ids."""


def plain_prompts(prompts: Prompts) -> tuple[list[PlainPrompt], bool]:
    """Prompts as a list, and whether it was one and no list of them.

    Args:
        prompts: One prompt or several. A tensor, an array or a mapping of several rows is several
            prompts; one of one row is one. A mapping's `attention_mask` takes padding out.

    Raises:
        InvalidRequestError: If something is no prompt, naming it.

    Example:
        >>> plain_prompts([[5, 6], [7]]), plain_prompts((5, 6))
        (([[5, 6], [7]], False), ([[5, 6]], True))
    """
    rows = _rows(prompts)
    if rows is not None:
        return list(rows), len(rows) == 1
    if isinstance(prompts, str):
        return [prompts], True
    items = _items(prompts, "the prompt")
    if not items:
        raise InvalidRequestError("prompts is empty: give at least one")
    if _is_one(items):
        return [_one(items, "the prompt")], True
    return [_single(item, f"prompt {index}") for index, item in enumerate(items)], False


def _is_one(items: list[object]) -> bool:
    """Whether these are the parts of one prompt, ids or messages, and no prompts themselves."""
    first = items[0]
    return is_whole(first) or (isinstance(first, Mapping) and "input_ids" not in first)


def _single(prompt: object, what: str) -> PlainPrompt:
    """One prompt of several."""
    rows = _rows(prompt, what)
    if rows is not None:
        if len(rows) != 1:
            raise InvalidRequestError(f"{what} has {len(rows)} rows: give each as its own prompt")
        return rows[0]
    return prompt if isinstance(prompt, str) else _one(_items(prompt, what), what)


def _one(items: list[object], what: str) -> list[int] | list[Message]:
    if all(is_whole(item) for item in items):
        return [int(cast(int, item)) for item in items]
    if items and all(isinstance(item, Mapping) for item in items):
        return [_message(cast(Mapping[str, Any], item), what) for item in items]
    is_talk = bool(items) and isinstance(items[0], Mapping)
    fits = [isinstance(item, Mapping) if is_talk else is_whole(item) for item in items]
    odd = items[fits.index(False)] if items else items
    kind = "message" if is_talk else "token id"
    raise InvalidRequestError(f"{what} holds {_shown(odd)}, which is no {kind}: {_HOW}")


def _message(message: Mapping[str, Any], what: str) -> Message:
    lacking = next((key for key in ("role", "content") if key not in message), None)
    if lacking is not None:
        raise InvalidRequestError(
            f"{what} has a message without {lacking!r} ({_shown(dict(message))}): "
            "give its role and its content"
        )
    # A call of tools may have no text beside it; a template would print any other None.
    content = message["content"]
    is_call = content is None and bool(message.get("tool_calls"))
    for key, is_fine in (
        ("role", isinstance(message["role"], str)),
        ("content", isinstance(content, str | list) or is_call),
    ):
        if not is_fine:
            raise InvalidRequestError(
                f"{what} has a message whose {key!r} is {_shown(message[key])}: give a text"
            )
    return message


def _items(value: object, what: str) -> list[object]:
    is_list = isinstance(value, Sequence | Iterable) and not isinstance(
        value, str | bytes | bytearray | Mapping | set | frozenset
    )
    if not is_list:
        raise InvalidRequestError(f"{what} is {_shown(value)}: {_HOW}")
    return list(cast(Iterable[object], value))


# --- tensors, arrays and tokenizers' mappings -------------------------------------------------


def _rows(prompt: object, what: str = "the prompt") -> list[list[int]] | None:
    """The rows of a tensor, an array or a mapping of ids; None for anything else."""
    if isinstance(prompt, Mapping):
        if "input_ids" not in prompt:
            raise InvalidRequestError(
                f"{what} is a mapping of {', '.join(map(repr, prompt))}: give a list of messages, "
                "or a tokenizer's mapping with input_ids"
            )
        return _mapped_rows(cast(Mapping[str, object], prompt), what)
    return _table(prompt, what) if hasattr(prompt, "ndim") else None


def _mapped_rows(mapping: Mapping[str, object], what: str) -> list[list[int]]:
    odd = next((key for key in mapping if key not in ("input_ids", *_MASKS)), None)
    if odd is not None:
        raise InvalidRequestError(f"{what} has {odd!r}, which cannot be honoured: leave it out")
    ids = _table(mapping["input_ids"], f"input_ids of {what}")
    marks = {name: _table(mapping[name], name) for name in _MASKS if name in mapping}
    for name, rows in marks.items():
        if [len(row) for row in rows] != [len(row) for row in ids]:
            raise InvalidRequestError(f"{name} of {what} has another shape than input_ids")
        allowed = {0, 1} if name == "attention_mask" else {0}
        found = next((mark for row in rows for mark in row if mark not in allowed), None)
        if found is not None:
            raise InvalidRequestError(f"{name} of {what} holds {found}: leave it out")
    masks = marks.get("attention_mask", [[1] * len(row) for row in ids])
    return [_unmasked(row, mask, what) for row, mask in zip(ids, masks, strict=True)]


def _unmasked(ids: list[int], mask: list[int], what: str) -> list[int]:
    """The ids that the mask shows, which lie together: holes would be another text."""
    kept = [token for token, mark in zip(ids, mask, strict=True) if mark]
    start = mask.index(1) if kept else 0
    if mask[start : start + len(kept)] != [1] * len(kept):
        raise InvalidRequestError(
            f"attention_mask of {what} has a hole: take the hidden tokens out of input_ids"
        )
    return kept


def _table(value: object, what: str) -> list[list[int]]:
    """One row or several of whole numbers, as lists."""
    if hasattr(value, "tolist"):
        ndim = cast(Any, value).ndim
        if ndim not in (1, 2):
            raise InvalidRequestError(f"{what} has {ndim} dimensions: give one row of ids, or rows")
        value = cast(Any, value).tolist()
    items = _items(value, what)
    has_rows = bool(items) and (isinstance(items[0], list | tuple) or hasattr(items[0], "tolist"))
    if not has_rows or is_whole(items[0]):
        return [_ids(items, what)]
    return [_ids(_items(row, what), what) for row in items]


def _ids(row: list[object], what: str) -> list[int]:
    odd = next((item for item in row if not is_whole(item)), None)
    if odd is not None:
        raise InvalidRequestError(f"{what} holds {_shown(odd)}, which is no token id: {_HOW}")
    return [int(cast(int, item)) for item in row]


def _shown(value: object) -> str:
    """A value for a message of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
