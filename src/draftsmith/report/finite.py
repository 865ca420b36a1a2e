"""Numbers that JSON lacks."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite"]


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value with every infinity and NaN, however deep, made None.

    Example:
        >>> finite({"a": [1.5, float("inf")]})
        {'a': [1.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
