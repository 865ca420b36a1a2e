"""Types and shapes are checked in every call of the package, at a bearable price."""
# Decorators of whatever function comes:
# pyright: basic

import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError

_jaxtyped: Any = jaxtyping.jaxtyped
_beartyped: Any = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


def _shapes(hint: Any) -> Iterator[str]:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        yield hint.dim_str
    for part in hint if isinstance(hint, list | tuple) else typing.get_args(hint):
        yield from _shapes(part)


def checked(function: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped` without what it is dear for.

    It binds every call's arguments by their signature and checks them twice, for better messages:
    half of the suite's time. Here beartype alone looks at a function without shapes, and at one
    with shapes once, where sizes of the same name must agree. What is wrong is the same error.
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

    return with_shapes
