"""Items of a workload, a JSON object a line."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from draftsmith.core.params import SamplingParams
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
        source: What begins a refusal, such as "workload mine.jsonl".
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
            raise InvalidRequestError(f"{source}, line {number}: {error}") from error
        if item.id in items:
            raise InvalidRequestError(
                f"{source}, line {number}: a second item with the id {item.id!r}: rename it"
            )
        items[item.id] = item
    if not items:
        raise InvalidRequestError(f'{source} is empty: give lines such as {{"prompt": "..."}}')
    return tuple(items.values())


def _item(line: str, default_id: str, default_task: str) -> Item:
    try:
        record: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {record!r}")
    fields = cast(dict[str, Any], record)
    _check_settings(fields)
    identity, task = fields.get("id", default_id), fields.get("task", default_task)
    for key, value in (("id", identity), ("task", task)):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError(f'"{key}" must be a text, got {value!r}')
    return Item(str(identity), _prompt(fields), _max_tokens(fields), str(task))


def _check_settings(fields: dict[str, Any]) -> None:
    """Refuse what looks like a setting of one line and would not be one."""
    known = {one.name for one in dataclasses.fields(SamplingParams)} - {"max_tokens"}
    name = next((key for key in fields if key in known), None)
    if name is not None:
        raise ValueError(
            f'"{name}" holds for all prompts alike, got {fields[name]!r}: leave it out, and give '
            "it as an option"
        )


def _max_tokens(fields: dict[str, Any]) -> int | None:
    value = fields.get("max_tokens")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'"max_tokens" must be a whole number, 1 or more, got {value!r}')
    return value


def _prompt(fields: dict[str, Any]) -> str | tuple[Message, ...]:
    given = [key for key in ("prompt", "messages") if key in fields]
    if len(given) != 1:
        have = "both" if given else "neither"
        raise ValueError(f'needs "prompt" or "messages", and has {have}: give one')
    if given == ["prompt"]:
        return _text(fields["prompt"], "prompt")
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError(f'"messages" must be a list of turns, got {messages!r}')
    return tuple(_turn(turn) for turn in cast(list[object], messages))


def _turn(turn: object) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f'a turn needs "role" and "content", got {turn!r}')
    fields = cast(dict[str, Any], turn)
    if set(fields) != {"role", "content"}:
        raise ValueError(f'a turn needs "role" and "content", and nothing else, got {turn!r}')
    return {key: _text(fields[key], key) for key in ("role", "content")}


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'"{what}" must be a text that is not empty, got {value!r}')
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f'"{what}" holds half of a surrogate pair: give valid Unicode')
    return value
