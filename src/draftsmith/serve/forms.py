"""The form that a request's text must have, from the fields that may ask for one."""

import re
from typing import NamedTuple

from draftsmith.core.structured import StructuredOutputs
from draftsmith.errors import InvalidRequestError
from draftsmith.serve.errors import ApiError, refused
from draftsmith.serve.schemas.chat import JsonObjectForm, ResponseFormat, TextForm
from draftsmith.serve.schemas.common import StructuredBody
from draftsmith.serve.schemas.responses import FlatSchemaForm

__all__ = ["AskedForm", "as_forms_write_it", "form_of"]

_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([0-9a-fA-F]{4}))?|(.))", re.DOTALL)


class AskedForm(NamedTuple):
    """A form, and the field that asked for it."""

    form: StructuredOutputs
    param: str

    def refusal(self, error: InvalidRequestError) -> ApiError | None:
        """The engine's refusal of it, which knows no field but its own, by the field's name.

        None where the engine refuses something else.
        """
        return _refusal(self.param, error)


def form_of(
    asked: ResponseFormat | FlatSchemaForm | None, structured: StructuredBody | None, param: str
) -> AskedForm | None:
    """What a request asks of its text; None is any text.

    Args:
        asked: OpenAI's field.
        structured: vLLM's.
        param: The name of OpenAI's field.

    Raises:
        ApiError: If both are given, or the schema is none.
        InvalidRequestError: If the form is none.
    """
    is_any = asked is None or isinstance(asked, TextForm)
    if structured is None:
        if asked is None or isinstance(asked, TextForm):
            return None
        if isinstance(asked, JsonObjectForm):
            return AskedForm(StructuredOutputs(json_object=True), param)
        is_flat = isinstance(asked, FlatSchemaForm)
        named = asked if is_flat else asked.json_schema
        place = f"{param}.schema" if is_flat else f"{param}.json_schema.schema"
        try:
            return AskedForm(StructuredOutputs(json=named.schema_), place)
        except InvalidRequestError as error:
            raise _refusal(place, error) or error from None
    if not is_any:
        raise refused("structured_outputs", f"and {param} both ask for a form: give one")
    values = structured.model_dump(exclude_none=True, by_alias=True)
    form = StructuredOutputs.from_value(values)
    return AskedForm(form, f"structured_outputs.{form.kind}")


def _refusal(param: str, error: InvalidRequestError) -> ApiError | None:
    named, _, rest = str(error).partition(" ")
    return refused(param, rest) if named.startswith("structured_outputs.") else None


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
