"""How wide the passes of a `transformers` model were: one that checks drafts is wider than one."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["has_checked", "pass_widths"]


@contextmanager
def pass_widths(model: Any) -> Generator[list[int]]:  # noqa: ANN401 - transformers' objects
    """Note how many tokens each pass of the model takes in; of an encoder-decoder, the decoder."""
    widths: list[int] = []

    def note(_: object, __: object, given: dict[str, Any]) -> None:
        ids = given.get("decoder_input_ids")
        ids = given.get("input_ids") if ids is None else ids
        if ids is not None:
            widths.append(ids.shape[-1])

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield widths
    finally:
        hook.remove()


def has_checked(widths: list[int], num_prompt: int) -> bool:
    """Whether any pass took in drafted tokens.

    Args:
        widths: Of all passes, in order.
        num_prompt: Tokens of the prompt that the first of them takes in.

    Example:
        >>> has_checked([5, 1, 1], 5), has_checked([5, 1, 4], 5), has_checked([8], 5)
        (False, True, True)
    """
    first, *later = widths or [0]
    return first > num_prompt or any(width > 1 for width in later)
