"""Calls of tools: found in what the models write, in the formats of Qwen and of Llama."""

import json
import re
import secrets
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

__all__ = ["CallReader", "Called", "Format", "calls_in", "format_of", "safe_length"]

Format: TypeAlias = Literal["tags", "bare"]
"""`<tool_call>{...}</tool_call>`, as Qwen and Hermes have it; or a bare object, as Llama 3."""
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_TAGGED = re.compile(rf"{_OPEN}\s*(.*?)\s*(?:{_CLOSE}|\Z)", re.DOTALL)
_ARGUMENTS = ("arguments", "parameters")
_BETWEEN = re.compile(r"[ \t\r\n]*[:,]?[ \t\r\n]*")
_HEAD = re.compile(rf'{{"name": "([\w-]+)", "(?:{"|".join(_ARGUMENTS)})": {{')
"""Of a call as forms have it."""


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


class CallReader:
    """Reads calls from a text that is held to them, as it grows."""

    def __init__(self) -> None:
        self._rest = ""
        """What was not yet understood."""
        self._num_calls = 0
        self._depth = 0
        """Of the arguments' braces and brackets; 0 is outside of arguments."""
        self._is_quoted = self._is_escaped = False

    @property
    def is_whole(self) -> bool:
        """Whether there are calls, and none of them is cut."""
        return self._num_calls > 0 and not self._depth

    def push(self, text: str) -> list[dict[str, Any]]:
        """What new text tells, as deltas of OpenAI's API: each call once at most."""
        self._rest += text
        found: list[dict[str, Any]] = []
        while self._rest:
            if self._depth:
                piece = self._arguments()
                if not found:
                    delta = {"index": self._num_calls - 1, "function": {"arguments": ""}}
                    found.append(delta)
                found[-1]["function"]["arguments"] += piece
                continue
            head = _HEAD.search(self._rest)
            if head is None:
                break
            found.append({"index": self._num_calls} | _called(head[1], "{"))
            self._num_calls += 1
            self._depth = 1
            self._rest = self._rest[head.end() :]
        return found

    def _arguments(self) -> str:
        """Take the arguments of a call off the text, as far as they go."""
        end = 0
        while self._depth and end < len(self._rest):
            letter = self._rest[end]
            if self._is_quoted:
                self._is_quoted = letter != '"' or self._is_escaped
                self._is_escaped = letter == "\\" and not self._is_escaped
            else:
                self._is_quoted = letter == '"'
                self._depth += (letter in "{[") - (letter in "}]")
            end += 1
        piece, self._rest = self._rest[:end], self._rest[end:]
        return piece


def _called(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _call(text: str) -> dict[str, Any] | None:
    """One call, if the text is one."""
    try:
        found = _members(text)
    except (ValueError, RecursionError):
        return None
    name = None if found is None else found.get("name")
    if found is None or name is None or not isinstance(name.value, str):
        return None
    given = next((found[key] for key in _ARGUMENTS if key in found), _Member({}, "{}"))
    if not isinstance(given.value, dict):
        return None
    return _called(name.value, given.text)


class _Member(NamedTuple):
    """A value, and how it is written: a number may have more digits than Python's."""

    value: Any
    text: str


def _members(text: str) -> dict[str, _Member] | None:
    """The members of a JSON text, if it is an object."""
    if not isinstance(_DECODER.decode(text), dict):
        return None
    found: dict[str, _Member] = {}
    place = _next_part(text, text.index("{") + 1)
    while text[place] != "}":
        key, end = _DECODER.raw_decode(text, place)
        place = _next_part(text, end)
        value, end = _DECODER.raw_decode(text, place)
        found[key] = _Member(value, text[place:end])
        place = _next_part(text, end)
    return found


def _next_part(text: str, place: int) -> int:
    """Where the next key or value of a JSON text begins."""
    between = _BETWEEN.match(text, place)
    assert between is not None
    return between.end()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
