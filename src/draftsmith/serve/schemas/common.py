"""Fields that every kind of generation knows."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from draftsmith.core.gamma import MAX_GAMMA

__all__ = [
    "MOST",
    "WHOLE",
    "Answer",
    "Body",
    "ChoicesBody",
    "Count",
    "Length",
    "Off",
    "Prediction",
    "SamplingBody",
    "Speculation",
    "StreamOptions",
    "StructuredBody",
    "TextPart",
    "TokenId",
    "joined_text",
]


class Body(BaseModel):
    """What a client sends: no field that is not known, no value that must be guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """What the server sends."""

    model_config = ConfigDict(extra="forbid")


class TextPart(Body):
    """A piece of a message; pictures and sounds are not served."""

    type: Literal["text"]
    text: str


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is the whole number 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Behind a field's bounds: before them it would take them out of the schema."""


def _off(value: bool) -> bool:
    if value:
        raise ValueError("must be false here")
    return value


# A literal would take 0 for it.
Off: TypeAlias = Annotated[bool, Field(json_schema_extra={"const": False}), AfterValidator(_off)]
"""What can only be declined."""
MOST = (1 << 31) - 1
"""Of what is counted; the limits of a server are lower."""
Count: TypeAlias = Annotated[int, Field(ge=0, le=MOST), WHOLE]
"""0 or more of something."""
Length: TypeAlias = Annotated[int, Field(ge=1, le=MOST), WHOLE]
"""The longest text, in tokens."""
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=MOST), WHOLE]
"""Of the model's vocabulary."""
Text: TypeAlias = str | list[TextPart]


def joined_text(content: Text) -> str:
    """The text of all parts, as it stands."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class StreamOptions(Body):
    """What a stream tells beside its text."""

    include_usage: bool | None = None
    include_obfuscation: Off | None = None
    """OpenAI's padding against eavesdroppers; none is added here."""


class Speculation(Body):
    """How this request is speculated for; whatever it says, the text's law is the target's."""

    gamma: Annotated[int, Field(ge=0, le=MAX_GAMMA), WHOLE] | Literal["auto"] | None = None
    """Drafted tokens per round; 0 switches speculation off, "auto" is the server's own choice."""
    draft: str | None = None
    """Who drafts: the server's draft by name, "prompt-lookup" or "none"."""
    statistics: bool = False
    """Whether `usage` has `speculation`."""
    origins: bool = False
    """Whether every choice tells where each of its tokens came from."""


class StructuredBody(Body):
    """The form that the text must have: one of the first five; vLLM's field."""

    json_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None
    disable_any_whitespace: bool | None = None
    whitespace_pattern: str | None = None


class Prediction(Body):
    """A text that much of the answer may equal: checked as a draft that costs nothing."""

    type: Literal["content"]
    content: str | list[TextPart]


Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
Bias: TypeAlias = Annotated[float, Field(ge=-100, le=100)]
StopString: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]
TokenName: TypeAlias = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]


# Without this, a schema would let names of any other form pass.
Biases: TypeAlias = Annotated[
    dict[TokenName, Bias], Field(json_schema_extra={"additionalProperties": False})
]


class SamplingBody(Body):
    """How to sample and when to stop: OpenAI's fields, and the extensions that other servers have.

    Null is the default everywhere.
    """

    model: str | None = None
    """The served model's name."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """1 by default; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST), WHOLE] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    """Token ids to what is added to their logits."""
    seed: Annotated[int, WHOLE] | None = None
    """Fixes the text, whatever else is served and whoever drafts; from -2**63 to 2**64 - 1."""
    stop: StopString | list[StopString] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    structured_outputs: StructuredBody | None = None
    stream: bool | None = None
    speculation: Speculation | None = None
    timeout: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """Seconds, at most the server's own; then the request ends with 504."""
    user: str | None = None
    """Taken and not used, as the next ones."""

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return bool(self.stream)

    @property
    def stop_strings(self) -> list[str]:
        """As a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChoicesBody(SamplingBody):
    """Generation of several texts, streamed in chunks."""

    n: Annotated[int, Field(ge=1, le=128), WHOLE] | None = None
    stream_options: StreamOptions | None = None
    prediction: Prediction | None = None

    @property
    def is_usage_streamed(self) -> bool:
        """Whether a stream ends with what was used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
