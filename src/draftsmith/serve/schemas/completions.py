"""Requests of `/v1/completions`."""

from typing import Annotated

from pydantic import Field

from draftsmith.serve.schemas.common import WHOLE, ChoicesBody, Length, TokenId

__all__ = ["CompletionRequest"]

_Ids = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(ChoicesBody):
    """A text, or several, to go on from; as text or as token ids."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | _Ids
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
        | Annotated[list[_Ids], Field(min_length=1)]
    )
    max_tokens: Length | None = None
    """The longest text; 16 by default, as OpenAI has it."""
    logprobs: Annotated[int, Field(ge=0, le=100), WHOLE] | None = None
    """The likeliest tokens to tell beside each."""
    echo: bool | None = None
    """Whether the text begins with the prompt."""
    best_of: Annotated[int, Field(ge=1, le=128), WHOLE] | None = None
    """Must be `n`: nothing is drawn and then thrown away."""
