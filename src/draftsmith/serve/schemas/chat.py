"""Requests of `/v1/chat/completions`."""

from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from draftsmith.serve.schemas.common import WHOLE, Body, ChoicesBody, Length, Off, TextPart

__all__ = [
    "ChatMessage",
    "ChatRequest",
    "JsonObjectForm",
    "NamedTool",
    "ResponseFormat",
    "SomeTools",
    "TextForm",
    "ToolBody",
    "ToolCallMessage",
    "ToolResultMessage",
    "Turn",
]


class Function(Body):
    """What a tool does, and what it takes."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Whether calls that the model chooses to make fit the schema; forced ones always do."""


class ToolBody(Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """Which function."""

    name: str


class NamedTool(Body):
    """A function that the model must call."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    """Functions, and whether one must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class SomeTools(Body):
    """Those of the functions that the model may call."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice: TypeAlias = Annotated[NamedTool | SomeTools, Field(discriminator="type")]


class CalledFunction(Body):
    """A function and its arguments, as JSON's text."""

    name: str
    arguments: str


class ToolCall(Body):
    """A call that the model has made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ToolCallMessage(Body):
    """A turn of calls."""

    role: Literal["assistant"]
    tool_calls: Annotated[list[ToolCall], Field(min_length=1)]
    content: str | list[TextPart] | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None


class ToolResultMessage(Body):
    """What a call has brought."""

    role: Literal["tool"]
    content: str | list[TextPart]
    tool_call_id: str


class ChatMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    """For the chat template, which may use it."""
    # What clients send back of an answer, where there is nothing in it.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


def _kind(turn: object) -> str:
    """Which kind of turn it is meant to be, so that a fault is told of that kind alone."""
    given = vars(turn) if isinstance(turn, Body) else turn
    fields = cast(dict[Any, Any], given) if isinstance(given, dict) else {}
    if fields.get("role") == "tool":
        return "result"
    return "calls" if fields.get("role") == "assistant" and fields.get("tool_calls") else "text"


Turn: TypeAlias = Annotated[
    Annotated[ChatMessage, Tag("text")]
    | Annotated[ToolCallMessage, Tag("calls")]
    | Annotated[ToolResultMessage, Tag("result")],
    Discriminator(_kind),
]


class TextForm(Body):
    """Any text."""

    type: Literal["text"]


class JsonObjectForm(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """A JSON schema; it is held to whether `strict` is asked for or not."""

    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaForm(Body):
    """A JSON text that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat: TypeAlias = Annotated[
    TextForm | JsonObjectForm | JsonSchemaForm, Field(discriminator="type")
]


class ChatRequest(ChoicesBody):
    """A conversation to be answered."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    tools: Annotated[list[ToolBody], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    max_tokens: Length | None = None
    """The longest answer; by default what the context and the server leave."""
    max_completion_tokens: Length | None = None
    """OpenAI's newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=100), WHOLE] | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    """False is at most one call; true by default."""
    # Taken, and of no effect here: nothing is stored, and there is one tier.
    store: Off | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
