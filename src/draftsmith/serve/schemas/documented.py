"""How routes tell the schema what they answer."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from draftsmith.serve.schemas.answers import ErrorBody
from draftsmith.serve.schemas.common import MOST

__all__ = ["ERRORS", "generation", "with_bounds", "with_streams"]

_WHY = {
    400: "A field is unknown, wrong, or cannot be honoured exactly.",
    401: "No key, or a wrong one.",
    404: "Another model, or no such path.",
    405: "Another method.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    429: "No place to wait: come again after Retry-After seconds.",
    500: "The model's numbers are no distribution, or a round failed.",
    503: "The server is shutting down.",
    504: "The request took longer than its time.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": why} for status, why in _WHY.items()
}
"""For every route."""


def generation(whole: type[BaseModel], piece: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What a route of generations answers: an object, or a stream of events.

    Args:
        whole: The object.
        piece: What an event's data is.
    """
    data = {"type": "string", "contentMediaType": "application/json"}
    content = {"contentSchema": {"$ref": f"#/components/schemas/{piece.__name__}"}}
    failed = {"contentSchema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}
    event = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "event": {"type": "string"},
            "data": {"anyOf": [{"const": "[DONE]"}, data | content, data | failed]},
        },
    }
    stream = {"text/event-stream": {"itemSchema": event}}
    return {200: {"model": whole, "description": "The answer.", "content": stream}}


def with_bounds(schema: Any, bounds: Mapping[str, int]) -> None:  # noqa: ANN401 - JSON
    """Put a server's own limits in the place of the highest number that is counted.

    Args:
        schema: Any part of one; changed in place.
        bounds: By the name of a property, or of what holds it.
    """
    if isinstance(schema, list):
        for part in cast(list[Any], schema):
            with_bounds(part, bounds)
    elif isinstance(schema, dict):
        for name, part in cast(dict[str, Any], schema).items():
            if name in bounds:
                _bound(part, bounds[name])
            else:
                with_bounds(part, bounds)


def _bound(schema: Any, most: int) -> None:  # noqa: ANN401 - JSON
    if isinstance(schema, list):
        for part in cast(list[Any], schema):
            _bound(part, most)
    elif isinstance(schema, dict):
        found = cast(dict[str, Any], schema)
        if found.get("maximum") == MOST:
            found["maximum"] = most
        for part in found.values():
            _bound(part, most)


def with_streams(schema: dict[str, Any], *pieces: type[BaseModel]) -> dict[str, Any]:
    """A schema with the models of streams in it, and without answers that there are not.

    Args:
        schema: As FastAPI makes it.
        pieces: What events' data are.
    """
    schemas = schema["components"]["schemas"]
    for piece in pieces:
        found = piece.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= found.pop("$defs", {})
        schemas[piece.__name__] = found
    # What is not valid is answered 400 here.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    return schema
