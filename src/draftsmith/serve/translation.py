"""A request's fields as sampling parameters: exactly, or the answer is 400."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Job
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message, Tokenizer
from draftsmith.serve.calling import Calling, calling_of, check_choice, refusal_of_tools
from draftsmith.serve.errors import refused
from draftsmith.serve.forms import AskedForm, form_of
from draftsmith.serve.schemas.chat import (
    ChatRequest,
    ToolCallMessage,
    ToolResultMessage,
    Turn,
)
from draftsmith.serve.schemas.common import Prediction, SamplingBody, joined_text
from draftsmith.serve.schemas.completions import CompletionRequest
from draftsmith.serve.schemas.responses import ResponseRequest
from draftsmith.serve.settings import Limits
from draftsmith.serve.speculating import own_draft

__all__ = [
    "Work",
    "chat_work",
    "completion_work",
    "model_messages",
    "response_work",
    "tokenizer_of",
]

_COMPLETION_TOKENS = 16
"""OpenAI's default of `max_tokens` for completions."""


class Work(NamedTuple):
    """What a request asks of the engine."""

    samples: list[Sample]
    """One a choice, in order."""
    num_prompt_tokens: int
    echoes: list[str]
    """What each choice's text begins with."""
    n: int
    """Choices of each prompt."""
    calling: Calling | None = None
    """How the model may call tools, if it was told of any."""


def chat_work(engine: Engine, body: ChatRequest, limits: Limits) -> Work:
    """The texts that answer a conversation.

    Raises:
        ApiError: If a field cannot be honoured, naming it.
        InvalidRequestError: If the engine cannot honour one.
    """
    form = form_of(body.response_format, body.structured_outputs, "response_format")
    if body.top_logprobs is not None and not body.logprobs:
        raise refused("top_logprobs", "needs logprobs to be true")
    tokenizer = tokenizer_of(engine)
    if not tokenizer.has_chat_template:
        raise refused("messages", "need a chat template, and the model has none: use completions")
    check_choice(body)
    prompt, calling = _chat_prompt(tokenizer, body)
    # Two names of one limit: where both are given, both hold.
    limits_given = [one for one in (body.max_tokens, body.max_completion_tokens) if one is not None]
    longest = min(limits_given, default=None)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    asked = _Asked(body, limits, longest, logprobs, body.n or 1, body.prediction, form)
    if calling is None or calling.held_by is None:
        return _work(engine, [prompt], asked)._replace(calling=calling)
    if form is not None:
        raise refused(calling.held_by, "and another field both ask for a form: give one")
    try:
        asked = asked._replace(calls=calling.form())
        return _work(engine, [prompt], asked)._replace(calling=calling)
    except InvalidRequestError as error:
        raise refusal_of_tools(engine, calling, error) or error from None


def _chat_prompt(tokenizer: Tokenizer, body: ChatRequest) -> tuple[list[int], Calling | None]:
    """A conversation's ids, and how the model may call tools, if it was told of any."""
    messages = model_messages(body.messages)
    plain = tokenizer.encode_chat(messages)
    if not body.tools or body.tool_choice == "none":
        return plain, None
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    prompt = tokenizer.encode_tool_chat(messages, tools)
    if prompt == plain:
        raise refused("tools", "are not told of by the model's chat template: leave them out")
    return prompt, calling_of(body, tokenizer.decode(prompt))


def completion_work(engine: Engine, body: CompletionRequest, limits: Limits) -> Work:
    """The texts that go on from some prompts.

    Raises:
        ApiError: If a field cannot be honoured, naming it.
        InvalidRequestError: If the engine cannot honour one.
    """
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise refused("best_of", f"must be n ({body.n or 1}) here, got {body.best_of}")
    if body.echo and body.logprobs is not None:
        raise refused("echo", "together with logprobs is not supported: leave one of them out")
    given = body.prompt
    texts = [given] if isinstance(given, str) else [one for one in given if isinstance(one, str)]
    rows = [one for one in given if isinstance(one, list)]
    if texts:
        prompts = list(map(tokenizer_of(engine).encode, texts))
    else:
        prompts = rows or [[one for one in given if isinstance(one, int)]]
    longest = min(_COMPLETION_TOKENS, limits.max_output_tokens)
    longest = longest if body.max_tokens is None else body.max_tokens
    form = form_of(None, body.structured_outputs, "response_format")
    asked = _Asked(body, limits, longest, body.logprobs, body.n or 1, body.prediction, form)
    work = _work(engine, prompts, asked)
    if body.echo:
        told = texts or [tokenizer_of(engine).decode(prompt) for prompt in prompts]
        return work._replace(echoes=[text for text in told for _ in range(body.n or 1)])
    return work


def response_work(engine: Engine, body: ResponseRequest, limits: Limits) -> Work:
    """The text that answers a text or a conversation.

    Raises:
        ApiError: If a field cannot be honoured, naming it.
        InvalidRequestError: If the engine cannot honour one.
    """
    asked_form = None if body.text is None else body.text.format
    form = form_of(asked_form, body.structured_outputs, "text.format")
    if body.top_logprobs is not None and not body.include:
        raise refused("top_logprobs", "needs message.output_text.logprobs in include")
    tokenizer = tokenizer_of(engine)
    if not tokenizer.has_chat_template:
        raise refused("input", "needs a chat template, and the model has none: use completions")
    prompt = tokenizer.encode_chat(_response_messages(body))
    logprobs = (body.top_logprobs or 0) if body.include else None
    asked = _Asked(body, limits, body.max_output_tokens, logprobs, form=form)
    return _work(engine, [prompt], asked)


def _response_messages(body: ResponseRequest) -> list[Message]:
    found: list[Message] = []
    if body.instructions is not None:
        found.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*found, {"role": "user", "content": body.input}]
    for message in body.input:
        role = "system" if message.role == "developer" else message.role
        content = message.content
        text = content if isinstance(content, str) else "".join(one.text for one in content)
        found.append({"role": role, "content": text})
    return found


def model_messages(messages: Sequence[Turn]) -> list[Message]:
    """Turns as chat templates know them; a developer's are the system's, as OpenAI has it."""
    found: list[Message] = []
    for message in messages:
        if isinstance(message, ToolCallMessage):
            found.append(_call_turn(message))
            continue
        if isinstance(message, ToolResultMessage):
            content = joined_text(message.content)
            call = message.tool_call_id
            found.append({"role": "tool", "content": content, "tool_call_id": call})
            continue
        role = "system" if message.role == "developer" else message.role
        turn = {"role": role, "content": joined_text(message.content)}
        found.append(turn if message.name is None else turn | {"name": message.name})
    return found


def _call_turn(message: ToolCallMessage) -> Message:
    """A turn of calls, whose arguments templates want as values."""
    calls: list[dict[str, Any]] = []
    for number, call in enumerate(message.tool_calls):
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            where = f"messages.tool_calls[{number}].function.arguments"
            raise refused(where, f"must be JSON, got {call.function.arguments!r:.60}") from error
        function = {"name": call.function.name, "arguments": arguments}
        calls.append({"id": call.id, "type": "function", "function": function})
    content = joined_text(message.content or "")
    turn: Any = {"role": "assistant", "content": content, "tool_calls": calls}
    return turn


def tokenizer_of(engine: Engine) -> Tokenizer:
    """The tokenizer of an engine that has one.

    Raises:
        InvalidRequestError: If it has none.
    """
    if engine.tokenizer is None:
        raise InvalidRequestError("the model is served without a tokenizer: give token ids")
    return engine.tokenizer


class _Asked(NamedTuple):
    """What the prompts of one request have in common."""

    body: SamplingBody
    limits: Limits
    longest: int | None
    """Of each text; None is what the context and the server leave."""
    logprobs: int | None
    n: int = 1
    prediction: Prediction | None = None
    form: AskedForm | None = None
    calls: StructuredOutputs | None = None
    """What holds the text to calls of tools, in the place of a form."""

    @property
    def structured(self) -> StructuredOutputs | None:
        """What the text must follow."""
        return self.calls if self.form is None else self.form.form


def _work(engine: Engine, prompts: Sequence[list[int]], asked: _Asked) -> Work:
    """The samples of some prompts that share their parameters."""
    _check_limits(asked, len(prompts))
    own = own_draft(
        engine, asked.body.speculation, asked.prediction, asked.structured, asked.limits
    )
    samples: list[Sample] = []
    num_prompt_tokens = 0
    for prompt in prompts:
        job = _prepared(engine, prompt, asked)
        num_prompt_tokens += len(job.prompt)
        samples += job.samples
    for sample in samples:
        sample.own_draft = own
    return Work(samples, num_prompt_tokens, [""] * len(samples), asked.n)


def _prepared(engine: Engine, prompt: list[int], asked: _Asked) -> Job:
    try:
        return engine.prepare(prompt, _params(asked, _length(engine, prompt, asked)))
    except InvalidRequestError as error:
        raise (asked.form and asked.form.refusal(error)) or error from None


def _check_limits(asked: _Asked, num_prompts: int) -> None:
    body, limits = asked.body, asked.limits
    if body.seed is not None and not -(1 << 63) <= body.seed < 1 << 64:
        raise refused("seed", f"must be from -2**63 to 2**64 - 1, got {body.seed}")
    for name, value, most in (
        ("n", num_prompts * asked.n, limits.max_choices),
        ("stop", len(body.stop_strings), limits.max_stop),
        ("logit_bias", len(body.logit_bias or ()), limits.max_bias),
        (_sent(body, *_LOGPROBS), asked.logprobs or 0, limits.max_logprobs),
        (_sent(body, *_LENGTHS), asked.longest or 0, limits.max_output_tokens),
    ):
        if value > most:
            what = "texts" if name == "n" else "entries" if name in ("stop", "logit_bias") else ""
            told = f"{value} {what}".rstrip()
            raise refused(name, f"asks {told}, and this server bears {most}: ask less")


_LOGPROBS = ("top_logprobs", "logprobs")
_LENGTHS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def _sent(body: SamplingBody, *names: str) -> str:
    """By which of a field's names it was sent; the last one where by none."""
    return next((name for name in names if getattr(body, name, None) is not None), names[-1])


def _length(engine: Engine, prompt: list[int], asked: _Asked) -> int:
    """The longest text: as asked, or what the context and the server leave."""
    if asked.longest is not None:
        return asked.longest
    traits = engine.target.traits
    room = asked.limits.max_output_tokens
    if traits.context_length is not None:
        before = 1 if traits.is_encoder_decoder else len(prompt)
        room = min(room, traits.context_length - before)
    # A prompt that leaves no room is refused by the engine, which says so.
    return max(room, 1)


def _params(asked: _Asked, longest: int) -> SamplingParams:
    body = asked.body
    given: dict[str, Any] = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": {int(token): bias for token, bias in (body.logit_bias or {}).items()},
        # OpenAI's seeds are signed.
        "seed": None if body.seed is None else body.seed % (1 << 64),
        "n": asked.n,
        "stop": None if body.stop is None else body.stop_strings,
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "ignore_eos": body.ignore_eos,
        "min_tokens": body.min_tokens,
        "max_tokens": longest,
        "logprobs": asked.logprobs,
        "structured_outputs": asked.structured,
    }
    return SamplingParams(**{name: value for name, value in given.items() if value is not None})
