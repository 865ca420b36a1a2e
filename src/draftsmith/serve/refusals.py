"""Why a request is refused, in one line that names the field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.serve.errors import ApiError

__all__ = ["refusal_of", "refusal_of_engine"]

_KNOWN_ELSEWHERE = frozenset(
    {
        *("audio", "best_of", "echo", "functions", "function_call", "reasoning_effort", "suffix"),
        *("verbosity", "web_search_options", "prediction", "tools", "tool_choice"),
        *("include", "previous_response_id", "reasoning", "truncation", "background", "prompt"),
        *("conversation", "max_tool_calls", "context_management", "prompt_cache_retention"),
    }
)
"""Fields of OpenAI's API that not every endpoint here has."""
_FIELD = re.compile(r"^([a-z_]+)(?:=\S+)? ")


def refusal_of(errors: Sequence[Mapping[str, Any]], body: object) -> ApiError:
    """The 400 of a body that is not as its schema says: one fault, unknown fields before others.

    Args:
        errors: As pydantic tells them, one for each kind of a union.
        body: What was sent.
    """
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    # Of the kinds of a union, the one that fits deepest was meant.
    error = max(unknown or errors, key=lambda one: len(_place(one, body)))
    where = _place(error, body)
    if error["type"] == "json_invalid":
        why = error.get("ctx", {}).get("error", "it cannot be read")
        return ApiError(400, f"the body is no JSON: {why}", code="invalid_json")
    if not where:
        why = str(error["msg"]).rstrip(".")
        return ApiError(400, f"the body must be a JSON object: {why}", code="invalid_json")
    name = _path(where)
    if unknown:
        is_known = len(where) == 1 and where[0] in _KNOWN_ELSEWHERE
        rule = "is not supported here" if is_known else "is unknown"
        return ApiError(400, f"{name} {rule}: leave it out", param=name, code="unknown_parameter")
    code = "missing_required_parameter" if error["type"] == "missing" else "invalid_type"
    why = str(error["msg"]).rstrip(".")
    given = "" if error["type"] == "missing" else f", got {error.get('input')!r:.80}"
    return ApiError(400, f"{name}: {why}{given}", param=name, code=code)


def refusal_of_engine(error: DraftsmithError) -> ApiError:
    """The 400 of what the engine cannot honour; 500 if it is no fault of the request's."""
    message = str(error)
    if not isinstance(error, InvalidRequestError):
        return ApiError(500, message, code="engine_error")
    named = _FIELD.match(message)
    param = named[1] if named and ("_" in named[1] or named[1] in ("seed", "stop", "n")) else None
    is_long = "has a context of" in message
    code = "context_length_exceeded" if is_long else "invalid_value"
    return ApiError(400, message, param=param, code=code)


def _place(error: Mapping[str, Any], body: object) -> list[str | int]:
    """Where in the body a fault is, without the names that pydantic has for kinds of a union."""
    parts = [part for part in error["loc"] if part != "body"]
    found: list[str | int] = []
    here = body
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if isinstance(here, dict) and (part in here or (is_last and error["type"] == "missing")):
            here = cast(dict[Any, Any], here).get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = cast(list[Any], here)[part]
        else:
            continue
        found.append(part)
    return found


def _path(where: Sequence[str | int]) -> str:
    """`messages[0].content`."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part!r:.40}]"
    return text
