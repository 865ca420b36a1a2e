"""What form a text must have: a JSON schema, a regular expression, a grammar."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from draftsmith.core.values import check_flag, require
from draftsmith.errors import InvalidRequestError

__all__ = ["LONGEST_GRAMMAR", "StructuredOutputs"]

LONGEST_GRAMMAR = 2**18
"""Characters that a schema, an expression or a grammar may have."""
_LARGEST_DIVISOR = 100_000
"""Of `multipleOf`, zeros at its ends left out: its automaton has as many states."""
_MULTIPLE = re.compile(r'"multipleOf"\s*:\s*([-+.0-9eE]+)')
_KINDS = ("json", "json_object", "regex", "choice", "grammar")
_NAME = "structured_outputs"


@dataclass(frozen=True, kw_only=True)
class StructuredOutputs:
    """The form that a text must have; the fields are those of vLLM's `StructuredOutputsParams`.

    Give one of `json`, `json_object`, `regex`, `choice` and `grammar`. The text is then drawn from
    the model's law with every token that the form refuses taken out, position by position, and ends
    where the form ends.

    Example:
        >>> StructuredOutputs(regex="[0-9]+").kind
        'regex'
        >>> StructuredOutputs(json={"type": "integer"}).json
        '{"type":"integer"}'
    """

    json: str | Mapping[str, Any] | None = None
    """A JSON schema, as a mapping or as its text; kept as text."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression that the whole text matches, without look-around and back-references."""
    choice: Iterable[str] | None = None
    """The texts of which it is one."""
    grammar: str | None = None
    """A context-free grammar in Lark's notation (llguidance's variant), from its rule `start`."""
    disable_any_whitespace: bool = False
    """With `json` and `json_object`: no blanks between the parts; the default allows any."""
    whitespace_pattern: str | None = None
    """With `json` and `json_object`: what stands where blanks may, as a regular expression."""

    def __post_init__(self) -> None:
        """Check every field once, and keep it as a value that nobody can change.

        Raises:
            InvalidRequestError: If a value is of another type or too long, or no form is given, or
                several.
        """
        set_ = object.__setattr__
        set_(self, "json", _schema(self.json))
        set_(self, "choice", _choices(self.choice))
        for name in ("json_object", "disable_any_whitespace"):
            set_(self, name, check_flag(f"{_NAME}.{name}", getattr(self, name)))
        for name in ("regex", "grammar", "whitespace_pattern"):
            _check_text(name, getattr(self, name))
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            found = "none" if not given else " and ".join(given)
            raise InvalidRequestError(
                f"{_NAME} must have one of {', '.join(_KINDS)}, got {found}: give one"
            )
        self._check_whitespace()

    @classmethod
    def from_value(cls, value: object) -> "StructuredOutputs":
        """Take one as it is, or a mapping of its fields.

        Args:
            value: Either.

        Returns:
            The form.

        Raises:
            InvalidRequestError: If it is neither, or a field is unknown or out of range.

        Example:
            >>> StructuredOutputs.from_value({"choice": ["yes", "no"]}).choice
            ('yes', 'no')
        """
        if isinstance(value, cls):
            return value
        is_mapping = isinstance(value, Mapping)
        require(is_mapping, _NAME, "StructuredOutputs, or a mapping of its fields", value)
        given = cast(Mapping[str, Any], value)
        known = {item.name for item in fields(cls)}
        odd = next((name for name in given if name not in known), None)
        if odd is not None:
            raise InvalidRequestError(
                f"unknown field {odd!r} of {_NAME}: use {', '.join(sorted(known))}"
            )
        return cls(**given)

    @property
    def kind(self) -> str:
        """Which of the forms it is."""
        return next(name for name in _KINDS if getattr(self, name) not in (None, False))

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something, ready for JSON.

        Returns:
            What `from_value` takes back.

        Example:
            >>> StructuredOutputs(json_object=True).to_dict()
            {'json_object': True}
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        given = {name: value for name, value in values.items() if value not in (None, False)}
        return given | ({"choice": list(given["choice"])} if "choice" in given else {})

    def _check_whitespace(self) -> None:
        pattern = self.whitespace_pattern
        is_json = self.kind in ("json", "json_object")
        if not is_json and (pattern is not None or self.disable_any_whitespace):
            name = "disable_any_whitespace" if pattern is None else "whitespace_pattern"
            raise InvalidRequestError(
                f"{_NAME}.{name} is for JSON, and this is {self.kind}: leave it out"
            )
        if pattern is not None and self.disable_any_whitespace:
            raise InvalidRequestError(
                f"{_NAME}.whitespace_pattern={pattern!r:.60} and disable_any_whitespace exclude "
                "each other: give one"
            )


def _schema(value: object) -> str | None:
    """A schema as its text, its properties in the order that they are given in."""
    if value is None:
        return None
    name, rule = f"{_NAME}.json", "a JSON schema: an object, or its text"
    try:
        # The text is kept as it came: a schema may be written over many lines.
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        _check_text("json", text)
        found: object = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        why = " ".join(str(error).split())
        raise InvalidRequestError(
            f"{name} must be {rule}, got {value!r:.60}: {why:.120}"
        ) from error
    require(isinstance(found, dict), name, rule, value)
    return text


def _choices(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    name, rule = f"{_NAME}.choice", "a list of texts"
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    require(is_list, name, rule, value)
    texts = tuple(cast(Iterable[object], value))
    is_text = bool(texts) and all(isinstance(one, str) and one for one in texts)
    require(is_text, name, "one text or more, none of them empty", value)
    _check_size("choice", sum(len(cast(str, one)) for one in texts))
    return cast(tuple[str, ...], texts)


def _check_text(field: str, value: object) -> None:
    if value is None:
        return
    name = f"{_NAME}.{field}"
    require(isinstance(value, str) and bool(value), name, "a text that is not empty", value)
    text = cast(str, value)
    _check_size(field, len(text))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequestError(f"{name} holds half of a surrogate pair: give valid Unicode")
    _check_multiples(name, text)


def _check_multiples(name: str, text: str) -> None:
    """Refuse a divisor whose automaton would take all memory; escaped letters are letters."""
    plain = re.sub(r"\\u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    for found in _MULTIPLE.finditer(plain):
        try:
            digits = Decimal(found[1]).normalize().as_tuple().digits
        except InvalidOperation:
            continue  # no number: the schema says so itself
        if int("".join(map(str, digits))) > _LARGEST_DIVISOR:
            raise InvalidRequestError(
                f"{name} must have divisors of few digits, got multipleOf {found[1]:.40}: leave "
                "it out"
            )


def _check_size(field: str, size: int) -> None:
    if size > LONGEST_GRAMMAR:
        raise InvalidRequestError(
            f"{_NAME}.{field} must have at most {LONGEST_GRAMMAR} characters, got {size}: "
            "make it shorter"
        )
