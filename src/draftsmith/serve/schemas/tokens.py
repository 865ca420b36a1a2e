"""Requests of `/tokenize` and `/detokenize`."""

from typing import Annotated

from pydantic import Field

from draftsmith.serve.schemas.chat import Turn
from draftsmith.serve.schemas.common import Body, TokenId

__all__ = ["DetokenizeRequest", "TokenizeRequest"]


class TokenizeRequest(Body):
    """A text or a conversation to be made ids."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Turn], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    """Whether a text gets the tokens that the model expects around it; true by default."""
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    """Ids to be made text."""

    model: str | None = None
    tokens: list[TokenId]
