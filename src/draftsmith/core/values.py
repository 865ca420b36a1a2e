"""Values as a caller gives them, turned into Python's own, or refused with name and value.

Numbers of NumPy and torch are numbers; a bool is none, text is none, and what must be whole is
whole: 2.0 tokens are a mistake somewhere, and would be another number of tokens elsewhere.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from draftsmith.errors import InvalidRequestError

__all__ = [
    "FrozenDict",
    "check_flag",
    "check_number",
    "check_token_ids",
    "check_whole",
    "is_moderate",
    "is_whole",
    "require",
]

_MOST = 1e30
"""Of what is added to a logit or multiplies it: float32 ends at 3.4e38."""


class FrozenDict(dict[Any, Any]):
    """A dict that is never written to: it can be hashed, pickled, and turned into JSON.

    Example:
        >>> FrozenDict({1: 2.0})[1], hash(FrozenDict()) == hash(FrozenDict())
        (2.0, True)
    """

    def __hash__(self) -> int:  # type: ignore[override]  # dict sets it to None
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def _refuse_to_write(*args: object, **kwargs: object) -> None:
    raise TypeError("it is frozen: make a new one")


for _name in (
    "__setitem__",
    "__delitem__",
    "__ior__",
    "clear",
    "pop",
    "popitem",
    "update",
    "setdefault",
):
    setattr(FrozenDict, _name, _refuse_to_write)


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Refuse a value that breaks a rule.

    Raises:
        InvalidRequestError: Naming all three.
    """
    if not condition:
        raise InvalidRequestError(f"{name} must be {rule}, got {value!r}")


def is_whole(value: object) -> bool:
    """Whether this is a whole number of Python, NumPy or torch, and no bool.

    Example:
        >>> [is_whole(value) for value in (3, True, 3.0, "3", None)]
        [True, False, False, False, False]
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return False
    if getattr(value, "ndim", 0):
        return False
    try:
        operator.index(cast(Any, value))
    except TypeError:
        return False
    return True


def check_whole(name: str, value: object, rule: str = "a whole number") -> int:
    """Return a whole number as Python's int.

    Raises:
        InvalidRequestError: If it is none.

    Example:
        >>> check_whole("n", 3)
        3
    """
    require(is_whole(value), name, rule, value)
    return operator.index(cast(Any, value))


def is_moderate(*numbers: float) -> bool:
    """Whether sums and products of float32 logits with these numbers stay finite.

    Example:
        >>> is_moderate(2.0, -1e30), is_moderate(1e39), is_moderate(float("nan"))
        (True, False, False)
    """
    return all(abs(number) <= _MOST for number in numbers)


def check_number(name: str, value: object, rule: str = "a number") -> float:
    """Return a real number as Python's float.

    Raises:
        InvalidRequestError: If it is none, or too large for one.

    Example:
        >>> check_number("temperature", 1)
        1.0
    """
    is_number = hasattr(value, "__float__") and not isinstance(value, bool)
    is_scalar = not getattr(value, "ndim", 0)
    is_bool = str(getattr(value, "dtype", "")).endswith("bool")
    require(is_number and is_scalar and not is_bool, name, rule, value)
    try:
        return float(cast(Any, value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"{name} must be {rule}, got {value!r:.60}") from error


def check_flag(name: str, value: object) -> bool:
    """Return a truth value.

    Raises:
        InvalidRequestError: If it is none: 0 and "no" may mean anything.
    """
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
    require(is_bool, name, "True or False", value)
    return bool(value)


def check_token_ids(name: str, value: object) -> tuple[int, ...]:
    """Return token ids as a tuple of ints; a caller's list would stay the caller's to change.

    Raises:
        InvalidRequestError: If it is no list of whole numbers from 0.

    Example:
        >>> check_token_ids("stop_token_ids", [3, 4])
        (3, 4)
    """
    rule = "token ids"
    items = tuple(_items(name, value, rule))
    require(all(is_whole(token) for token in items), name, rule, value)
    ids = tuple(operator.index(cast(Any, token)) for token in items)
    require(all(token >= 0 for token in ids), name, rule, value)
    return ids


def _items(name: str, value: object, rule: str) -> Iterator[object]:
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    require(is_list and getattr(value, "ndim", 1) == 1, name, rule, value)
    return iter(cast(Iterable[object], value))
