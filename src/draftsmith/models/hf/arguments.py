"""What a model's `forward` takes, by any of the names that versions of `transformers` use."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import inspect
from typing import Any

from draftsmith.errors import ModelFormatError

__all__ = ["accepted_arguments", "cache_argument"]

_CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""Newest first: 5.24 renamed the next two, which code of its own keeps; RWKV has `state`."""


def accepted_arguments(model: Any) -> frozenset[str]:
    """Names of the arguments of a model's `forward`."""
    return frozenset(inspect.signature(_innermost(model).forward).parameters)


def _innermost(model: Any) -> Any:
    """What a compiled model, or one with an adapter (PEFT), passes its arguments on to."""
    model = getattr(model, "_orig_mod", model)
    base = getattr(model, "get_base_model", None)
    return model if base is None else base()


def cache_argument(model: Any, name: str) -> str:
    """What the model calls the keys and values that it is handed.

    Args:
        model: A model of `transformers`.
        name: What the user calls it.

    Raises:
        ModelFormatError: If it takes none that is known here.
    """
    accepted = accepted_arguments(model)
    known = next((one for one in _CACHE_NAMES if one in accepted), None)
    if known is None:
        raise ModelFormatError(f"{name} has no cache that is known here")
    return known
