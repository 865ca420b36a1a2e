"""Requests of `/v1/responses`: text in, text out."""

from typing import Annotated, Any, Literal

from pydantic import Field

from draftsmith.serve.schemas.chat import JsonObjectForm, TextForm
from draftsmith.serve.schemas.common import WHOLE, Body, Length, Off, SamplingBody

__all__ = ["FlatSchemaForm", "InputMessage", "ResponseRequest"]


class InputPart(Body):
    """A piece of a message."""

    type: Literal["input_text", "output_text"]
    text: str
    # What clients send back of an answer.
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]
    type: Literal["message"] | None = None
    # What clients send back of an answer.
    id: str | None = None
    status: Literal["completed", "incomplete"] | None = None


class FlatSchemaForm(Body):
    """A JSON text that fits a schema; it is held to whether `strict` is asked for or not."""

    type: Literal["json_schema"]
    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextOptions(Body):
    """How the text is to be."""

    format: (
        Annotated[TextForm | JsonObjectForm | FlatSchemaForm, Field(discriminator="type")] | None
    ) = None


class ResponseRequest(SamplingBody):
    """A text or a conversation to be answered."""

    input: Annotated[str, Field(min_length=1)] | Annotated[list[InputMessage], Field(min_length=1)]
    instructions: str | None = None
    """The system's turn."""
    max_output_tokens: Length | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=100), WHOLE] | None = None
    text: TextOptions | None = None
    # Taken, and of no effect here: nothing is stored, cut or run, and there is one tier.
    store: Off | None = None
    truncation: Literal["disabled"] | None = None
    background: Off | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
