"""The form that a request's text must have, from the fields that may ask for one."""

import re

from draftsmith.core.structured import StructuredOutputs
from draftsmith.serve.errors import refused
from draftsmith.serve.schemas.chat import JsonObjectForm, ResponseFormat, TextForm
from draftsmith.serve.schemas.common import StructuredBody
from draftsmith.serve.schemas.responses import FlatSchemaForm

__all__ = ["as_forms_write_it", "form_of"]

_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([0-9a-fA-F]{4}))?|(.))", re.DOTALL)


def form_of(
    asked: ResponseFormat | FlatSchemaForm | None, structured: StructuredBody | None, param: str
) -> StructuredOutputs | None:
    """What a request asks of its text; None is any text.

    Args:
        asked: OpenAI's field.
        structured: vLLM's.
        param: The name of OpenAI's field.

    Raises:
        ApiError: If both are given.
        InvalidRequestError: If the form is none.
    """
    is_any = asked is None or isinstance(asked, TextForm)
    if structured is None:
        if asked is None or isinstance(asked, TextForm):
            return None
        if isinstance(asked, JsonObjectForm):
            return StructuredOutputs(json_object=True)
        named = asked if isinstance(asked, FlatSchemaForm) else asked.json_schema
        return StructuredOutputs(json=named.schema_)
    if not is_any:
        raise refused("structured_outputs", f"and {param} both ask for a form: give one")
    values = structured.model_dump(exclude_none=True, by_alias=True)
    return StructuredOutputs.from_value(values)


def as_forms_write_it(text: str) -> str:
    """JSON with its characters as they are: a form takes no escapes where none are needed."""
    return _ESCAPES.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    first, second, other = found.groups()
    if other is not None:
        return "/" if other == "/" else found[0]
    codes = [int(code, 16) for code in (first, second) if code is not None]
    units = b"".join(code.to_bytes(2, "little") for code in codes)
    character = units.decode("utf-16-le", "replace")
    is_plain = character.isprintable() and not set(character) & set('"\\\N{REPLACEMENT CHARACTER}')
    return character if is_plain else found[0]
