"""Items of a workload, a JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message

__all__ = ["Item", "read_items"]


@dataclass(frozen=True)
class Item:
    """One prompt."""

    id: str
    """Unique in its workload."""
    prompt: str | tuple[Message, ...]
    """A text to go on from, or a conversation to answer."""
    max_tokens: int | None
    """The longest output; None leaves it to whoever runs the workload."""
    task: str
    """What kind of work it is."""


def read_items(lines: Iterable[str], source: str, name: str) -> tuple[Item, ...]:
    """Read a workload's lines; blank ones are skipped.

    Args:
        lines: Text, a line each.
        source: What to call the file in a refusal.
        name: The task of an item without one; also begins the id of an item without one.

    Raises:
        InvalidRequestError: If there is no item, or a line is none; it names the line.
    """
    items: dict[str, Item] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = _item(line, f"{name}/{number}", name)
        except ValueError as error:
            raise InvalidRequestError(f"workload {source}, line {number}: {error}") from error
        if item.id in items:
            raise InvalidRequestError(
                f"workload {source}, line {number}: a second item with the id {item.id!r}"
            )
        items[item.id] = item
    if not items:
        raise InvalidRequestError(
            f'workload {source} is empty: give lines such as {{"prompt": "..."}}'
        )
    return tuple(items.values())


def _item(line: str, default_id: str, default_task: str) -> Item:
    try:
        record: object = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    fields = cast(dict[str, Any], record)
    identity, task = fields.get("id", default_id), fields.get("task", default_task)
    for key, value in (("id", identity), ("task", task)):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError(f"{key} must be a text, got {value!r}")
    return Item(str(identity), _prompt(fields), _max_tokens(fields), str(task))


def _max_tokens(fields: dict[str, Any]) -> int | None:
    value = fields.get("max_tokens")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"max_tokens must be a whole number, 1 or more, got {value!r}")
    return value


def _prompt(fields: dict[str, Any]) -> str | tuple[Message, ...]:
    given = [key for key in ("prompt", "messages") if key in fields]
    if len(given) != 1:
        have = "both" if given else "neither"
        raise ValueError(f'needs "prompt" or "messages", and has {have}')
    if given == ["prompt"]:
        return _text(fields["prompt"], "prompt")
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of turns")
    return tuple(_turn(turn) for turn in cast(list[object], messages))


def _turn(turn: object) -> Message:
    if not isinstance(turn, dict):
        raise ValueError('a turn needs "role" and "content"')
    fields = cast(dict[str, Any], turn)
    if set(fields) != {"role", "content"}:
        raise ValueError('a turn needs "role" and "content", and nothing else')
    return {key: _text(fields[key], key) for key in ("role", "content")}


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} must be a text that is not empty, got {value!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{what} holds half of a surrogate pair")
    return value
