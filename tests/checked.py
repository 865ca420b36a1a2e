"""Types and shapes are checked in every call of the package, at a bearable price."""
# Decorators of whatever function comes:
# pyright: basic

import dataclasses
import functools
import inspect
import itertools
import threading
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError
from torch import Tensor

_jaxtyped: Any = jaxtyping.jaxtyped
_beartyped: Any = beartype(conf=BeartypeConf(violation_type=TypeCheckError))
_MANY = 8  # items of a list that are all looked at
_turns = itertools.count()
_found = threading.local()
_looks: dict[type, Callable[[Any], Hashable]] = {}


def _shapes(hint: Any) -> Iterator[str]:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        yield hint.dim_str
    for part in hint if isinstance(hint, list | tuple) else typing.get_args(hint):
        yield from _shapes(part)


def _is_of_values(hint: Any) -> bool:
    """Whether a check asks for more of a value than its kind."""
    if typing.get_origin(hint) in (typing.Literal, typing.Annotated):
        return True
    return any(
        _is_of_values(part)
        for part in (hint if isinstance(hint, list | tuple) else typing.get_args(hint))
    )


def _kind(value: Any) -> Hashable:
    """What a check of a value looks at. Of a long list it is some items, as with beartype."""
    kind = type(value)
    if kind is Tensor:
        return value.shape, value.dtype
    look = _looks.get(kind)
    if look is None:
        look = _looks[kind] = _look(kind)
    return look(value) if look is not type else kind


def _look(kind: type) -> Callable[[Any], Hashable]:
    """How the values of a class are told apart."""
    if issubclass(kind, Tensor | np.ndarray):
        return lambda value: (kind, value.shape, value.dtype)
    if issubclass(kind, type):
        return lambda value: value
    if issubclass(kind, list):
        return lambda value: (kind, _alike(_some(value)))
    if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
        return lambda value: (kind, min(len(value), _MANY + 1), _kinds(_some(value)))
    if issubclass(kind, dict):
        return lambda value: (kind, _alike(_first(value)), _alike(_first(value.values())))
    if issubclass(kind, set | frozenset):
        return lambda value: (kind, _alike(_first(value)))
    return type


def _some(values: Any) -> Any:
    size = len(values)
    return values if size <= _MANY else (values[0], values[next(_turns) % size], values[-1])


def _first(values: Iterable[Any]) -> Iterator[Any]:
    return itertools.islice(values, _MANY)


def _alike(values: Iterable[Any]) -> Hashable:
    """The kind of all, or what no other call has: a check of a list looks at one item of it."""
    kinds = set(map(_kind, values))
    return kinds.pop() if len(kinds) == 1 else next(_turns) if kinds else None


def _kinds(values: Any) -> Hashable:
    return tuple(map(_kind, values))


def _remembered(function: Callable[..., Any], checked_call: Callable[..., Any]) -> Any:
    """Calls of the same kinds, shapes and types are checked once: the verdict would be the same."""
    known: dict[Hashable, set[Hashable]] = {}

    @functools.wraps(function)
    def returned(*args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        return _found.result

    check_result = _beartyped(returned)

    @functools.wraps(function)
    def with_shapes(*args: Any, **kwargs: Any) -> Any:
        given = _kinds(args), (*kwargs,), _kinds(kwargs.values())
        results = known.get(given)
        if results is None:
            result = checked_call(*args, **kwargs)
            known[given] = {_kind(result)}
            return result
        result = function(*args, **kwargs)
        kind = _kind(result)
        if kind not in results:
            _found.result = result
            with _jaxtyped("context"):
                check_result(*args, **kwargs)
            results.add(kind)
        return result

    return with_shapes


def checked(function: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped` without what it is dear for.

    It binds every call's arguments by their signature and checks them twice, for better messages:
    half of the suite's time. Here beartype alone looks at a function without shapes, and at one
    with shapes once for every new combination of kinds and shapes, where sizes of the same name
    must agree. What is wrong is the same error.
    """
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if dataclasses.is_dataclass(function) and not hasattr(function.__init__, "__wrapped__"):
        function.__init__ = checked(function.__init__, typechecker=typechecker)
        return function
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return _jaxtyped(function, typechecker=typechecker)
    try:
        hints = typing.get_type_hints(function)
        inner = _beartyped(function)
    except Exception:  # e.g. a class that is only being defined
        return _jaxtyped(function, typechecker=typechecker)
    shapes = [shape for hint in hints.values() for shape in _shapes(hint)]
    if not shapes:
        return inner
    if any("{" in shape for shape in shapes):  # a size that is an argument
        return _jaxtyped(function, typechecker=typechecker)

    @functools.wraps(function)
    def with_shapes(*args: Any, **kwargs: Any) -> Any:
        with _jaxtyped("context"):
            return inner(*args, **kwargs)

    if any(_is_of_values(hint) for hint in hints.values()):
        return with_shapes
    return _remembered(function, with_shapes)
