"""What the user passed to `model.generate`, also what `transformers` keeps from us.

It takes `assistant_model`, `streamer`, `synced_gpus`, `tokenizer` and `assistant_tokenizer` out of
the arguments before it calls a callable `custom_generate` (generation/utils.py,
`_extract_generation_mode_kwargs`, 5.17 to 5.24). So they are read where they still are: in its
own frame, and in those of the decorators around it.
"""

import inspect
from collections.abc import Mapping
from types import FrameType
from typing import Any

__all__ = ["arguments_of_generate"]

_NAMED = ("assistant_model", "streamer", "synced_gpus")


def arguments_of_generate() -> dict[str, Any]:
    """Keyword arguments as the user typed them; empty if nobody called `model.generate`."""
    frame = inspect.currentframe()
    while frame is not None and "custom_generate" not in frame.f_locals:
        frame = frame.f_back
    if frame is None:
        return {}
    arguments = {name: frame.f_locals.get(name) for name in _NAMED}
    frame = frame.f_back
    while frame is not None and _decorates_generate(frame):
        arguments |= frame.f_locals["kwargs"]
        frame = frame.f_back
    return arguments


def _decorates_generate(frame: FrameType) -> bool:
    """Whether it is `wrapper(*args, **kwargs)` around a `func` that is called `generate`."""
    around = getattr(frame.f_locals.get("func"), "__name__", None)
    return around == "generate" and isinstance(frame.f_locals.get("kwargs"), Mapping)
