"""`--json-schema`, `--regex`, `--grammar`: the form that a text must have, as options."""

from pathlib import Path
from typing import Any

from draftsmith.core.structured import StructuredOutputs
from draftsmith.errors import InvalidRequestError

__all__ = ["FORM_FIELDS", "form_of"]

FORM_FIELDS = {
    "json_schema": "json",
    "json_object": "json_object",
    "regex": "regex",
    "choice": "choice",
    "grammar": "grammar",
    "disable_any_whitespace": "disable_any_whitespace",
}
"""Options and the fields of `StructuredOutputs` that they give."""


def form_of(options: dict[str, Any]) -> StructuredOutputs | None:
    """The form that is asked for, if one is.

    Args:
        options: By the names in `FORM_FIELDS`; what was not given is None, empty or False.

    Raises:
        InvalidRequestError: If there are two, or a file cannot be read.
    """
    given = {name: value for name, value in options.items() if value not in (None, (), False)}
    if not given:
        return None
    forms = [name for name in given if name != "disable_any_whitespace"]
    if len(forms) != 1:
        found = " and ".join(f"--{name.replace('_', '-')}" for name in forms) or "no form"
        raise InvalidRequestError(
            f"one of --json-schema, --json-object, --regex, --choice and --grammar is wanted, got "
            f"{found}: give one"
        )
    for name, is_text in (("json_schema", _is_schema), ("grammar", _is_grammar)):
        if name in given and not is_text(given[name]):
            given[name] = _read(given[name], name)
    return StructuredOutputs(**{FORM_FIELDS[name]: value for name, value in given.items()})


def _is_schema(value: str) -> bool:
    """Whether it is the schema itself, and no file of it."""
    return value.lstrip().startswith("{")


def _is_grammar(value: str) -> bool:
    """Whether it is the grammar itself: it has a rule, which a path has not."""
    return "\n" in value or "start:" in value.replace(" ", "") or "::=" in value


def _read(path: str, option: str) -> str:
    name = f"--{option.replace('_', '-')} {path}"
    try:
        return Path(path).read_bytes().decode()
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            why = f"is not UTF-8 text (byte {error.start}): convert it"
        else:
            why = f"cannot be read: {getattr(error, 'strerror', None) or error}: check the path"
        raise InvalidRequestError(f"{name} {why}") from error
