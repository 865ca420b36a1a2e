"""What the server answers, for the schema; the answers themselves are written in `answers/`."""

from typing import Any, Literal

from pydantic import ConfigDict

from draftsmith.serve.schemas.common import Answer

__all__ = [
    "ChatChunk",
    "ChatCompletion",
    "Detokenized",
    "ErrorBody",
    "Health",
    "Model",
    "ModelList",
    "ResponseEvent",
    "ResponseObject",
    "TextCompletion",
    "Tokenized",
    "Version",
]


class ErrorDetail(Answer):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Answer):
    """An error, as OpenAI has it."""

    error: ErrorDetail


class PromptDetails(Answer):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(Answer):
    """Of the generated tokens."""

    accepted_prediction_tokens: int
    """Drafted from the prediction, and kept."""
    rejected_prediction_tokens: int
    """Drafted from the prediction, and not kept."""


class Usage(Answer):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    speculation: dict[str, Any] | None = None
    """What speculation did, if that was asked for."""


class TopToken(Answer):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(TopToken):
    """A token of the text, and the likeliest at its place."""

    top_logprobs: list[TopToken]


class ChatLogprobs(Answer):
    """Of the tokens of a text."""

    content: list[ChatToken]
    refusal: None


class TokenOrigin(Answer):
    """Where a token came from."""

    token: str
    id: int
    origin: Literal["kept", "residual", "bonus"]
    round: int
    rejected: str | None


class Choice(Answer):
    """What all choices have."""

    index: int
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    stop_reason: str | int | None = None
    """The stop string, or the id, that ended the text."""
    speculation: list[TokenOrigin] | None = None
    """Where the tokens came from, if that was asked for."""


class CallAnswer(Answer):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: dict[str, str]


class CallDelta(Answer):
    """What is new of a call in a stream; its id, type and name come first."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: dict[str, str]


class ChatMessageAnswer(Answer):
    """The answer's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[CallAnswer] | None = None


class ChatChoice(Choice):
    """One answer of a chat."""

    message: ChatMessageAnswer
    logprobs: ChatLogprobs | None


class Head(Answer):
    """What all objects of generations have."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Head):
    """The answers to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Answer):
    """What is new of a turn."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChatChunkChoice(Choice):
    """What is new of one answer."""

    delta: ChatDelta
    logprobs: ChatLogprobs | None


class ChatChunk(Head):
    """A piece of a streamed chat completion."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class TextLogprobs(Answer):
    """Of the tokens of a text, in parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Choice):
    """One text, or what is new of it."""

    text: str
    logprobs: TextLogprobs | None


class TextCompletion(Head):
    """Texts that go on from prompts, or a piece of them in a stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class ResponseObject(Answer):
    """An answer, with what of its request it repeats."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class ResponseEvent(Answer):
    """An event of a streamed response."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class Model(Answer):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None


class ModelList(Answer):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Tokenized(Answer):
    """The ids of a text."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Answer):
    """The text of ids."""

    prompt: str


class Health(Answer):
    """That all is well."""

    status: Literal["ok", "ready"]


class Version(Answer):
    """What runs."""

    version: str
