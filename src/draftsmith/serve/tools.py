"""Calls of tools: found in what the models write, in the formats of Qwen and of Llama."""

import json
import re
import secrets
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Called", "Format", "calls_in", "format_of", "safe_length"]

Format: TypeAlias = Literal["tags", "bare"]
"""`<tool_call>{...}</tool_call>`, as Qwen and Hermes have it; or a bare object, as Llama 3."""
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_TAGGED = re.compile(rf"{_OPEN}\s*(.*?)\s*(?:{_CLOSE}|\Z)", re.DOTALL)
_ARGUMENTS = ("arguments", "parameters")


class Called(NamedTuple):
    """A text, taken apart."""

    content: str
    """What stands before the calls."""
    calls: list[dict[str, Any]]
    """As OpenAI's API has them."""


def format_of(prompt: str) -> Format:
    """How a model was told to write its calls.

    Args:
        prompt: As the template writes it, tools included.
    """
    return "tags" if _OPEN in prompt else "bare"


def calls_in(text: str, form: Format) -> Called:
    """The calls of a whole text; what is no call stays text."""
    if form == "bare":
        call = _call(text.strip())
        return Called(text, []) if call is None else Called("", [call])
    found = list(_TAGGED.finditer(text))
    calls = [call for one in found if (call := _call(one[1])) is not None]
    if len(calls) < max(1, len(found)):
        return Called(text, [])
    return Called(text[: found[0].start()].rstrip(), calls)


def safe_length(text: str, form: Format) -> int:
    """How much of a text that grows can be no part of a call."""
    if form == "bare":
        return 0 if text.lstrip()[:1] in ("", "{") else len(text)
    place = text.find(_OPEN)
    if place < 0:
        sizes = [size for size in range(1, len(_OPEN)) if text.endswith(_OPEN[:size])]
        place = len(text) - max(sizes, default=0)
    # Blanks before a call are no part of the text.
    return len(text[:place].rstrip())


def _call(text: str) -> dict[str, Any] | None:
    """One call, if the text is one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    given = next((found[name] for name in _ARGUMENTS if name in found), {})
    if not isinstance(given, dict):
        return None
    arguments = json.dumps(given, ensure_ascii=False)
    function = {"name": found["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
