"""Forced calls through the official client, on SmolLM2-135M-Instruct as its file has it."""
# The client's and the tokenizer's objects are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Generator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from draftsmith import load_engine
from draftsmith.core.gamma import Gamma
from tests.serve import live
from tests.serve.live import Live

pytestmark = [pytest.mark.real_model, pytest.mark.xdist_group("real_model")]

_TEMPLATE = """{% if tools %}<|im_start|>system
You may call one or more functions. Their signatures:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}For each call, return a JSON object within <tool_call></tool_call> tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
"""In the manner of Qwen; the file's own tells of no tools."""
_ASKED: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "What is the weather in Paris, in celsius?"}],
    "max_tokens": 120,
}


class Weather(BaseModel):
    """The weather of a city."""

    model_config = ConfigDict(extra="forbid")

    city: str = Field(max_length=20)
    unit: Literal["celsius", "fahrenheit"]


class Clock(BaseModel):
    """The time of day in a zone."""

    model_config = ConfigDict(extra="forbid")

    zone: str = Field(max_length=20)


_TOOLS: Any = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]


def _serving(draft: str | None, gamma: Gamma) -> Any:
    engine = load_engine(_ASKED["model"], draft, gamma=gamma, device="cpu", threads=1)
    tokenizer: Any = engine.tokenizer
    tokenizer._chat_template = _TEMPLATE
    return live.serving(engine)


@pytest.fixture(scope="module")
def clients() -> Generator[list[OpenAI]]:
    """Of a server that drafts, and of one that never does."""

    def client(server: Live) -> OpenAI:
        return OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)

    with (
        _serving("prompt-lookup", 4) as drafting,
        _serving(None, 0) as plain,
        client(drafting) as first,
        client(plain) as second,
    ):
        yield [first, second]


@pytest.mark.parametrize("more", [{"temperature": 0.0}, {"seed": 7}], ids=["greedy", "seeded"])
def test_a_named_tool_is_called(clients: list[OpenAI], more: dict[str, Any]) -> None:
    choice: Any = {"type": "function", "function": {"name": "Weather"}}
    told: list[str] = []
    for client in clients:
        done = client.chat.completions.parse(**_ASKED, tools=_TOOLS, tool_choice=choice, **more)
        [call] = done.choices[0].message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, Weather)
        assert done.choices[0].finish_reason == "stop"
        told.append(call.function.arguments)
    assert told[0] == told[1]


def test_a_required_call_is_streamed(clients: list[OpenAI]) -> None:
    told: list[tuple[str, str]] = []
    asked = _ASKED | {"tools": _TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    for client in clients:
        with client.chat.completions.stream(**asked, temperature=0.0) as stream:
            kinds = [event.type for event in stream]
            choice = stream.get_final_completion().choices[0]
        assert "tool_calls.function.arguments.delta" in kinds
        assert "tool_calls.function.arguments.done" in kinds
        assert choice.finish_reason == "tool_calls"
        [call] = choice.message.tool_calls or []
        assert call.id.startswith("call_")
        assert isinstance(call.function.parsed_arguments, Weather | Clock)
        told.append((call.function.name, call.function.arguments))
    assert told[0] == told[1]


def test_forced_tokens_take_few_passes(clients: list[OpenAI]) -> None:
    body = {"speculation": {"statistics": True}}
    asked = _ASKED | {"tools": _TOOLS, "tool_choice": "required", "temperature": 0.0}
    done = clients[0].chat.completions.create(**asked, extra_body=body)
    usage: Any = done.usage
    assert usage.speculation["tokens_per_pass"] > 2
    assert usage.completion_tokens_details.accepted_prediction_tokens == 0


def test_a_wrong_choice_is_told_as_openai_tells_it(clients: list[OpenAI]) -> None:
    choice: Any = {"type": "function", "function": {"name": "Moon"}}
    with pytest.raises(openai.BadRequestError, match="Weather, Clock") as caught:
        clients[0].chat.completions.create(**_ASKED, tools=_TOOLS, tool_choice=choice)
    assert caught.value.param == "tool_choice"
