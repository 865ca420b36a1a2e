"""How a request's tools may be called, and the form that holds a text to it."""

import json
from typing import Any, Literal, NamedTuple

from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.serve.errors import ApiError, refused
from draftsmith.serve.schemas.chat import ChatRequest, NamedTool, SomeTools, ToolBody
from draftsmith.serve.tools import Format, format_of

__all__ = ["Calling", "calling_of", "check_choice", "refusal_of_tools"]

_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How arguments are written: as templates show calls, with no blanks elsewhere, so that most
tokens of a call are forced."""
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_ARGUMENTS: dict[Format, str] = {"tags": "arguments", "bare": "parameters"}
_PLAIN = {
    "tags": "PLAIN: /(?s:.+)/ & ~/(?s:.*)<tool_call>(?s:.*)/",
    # What begins like an object is a call.
    "bare": r"PLAIN: /[ \t\r\n]+/ | /[ \t\r\n]*[^ \t\r\n{](?s:.*)/",
}
"""A text without a call."""


class Calling(NamedTuple):
    """How tools may be called."""

    format: Format
    """As the template told the model to write calls."""
    tools: list[tuple[int, ToolBody]]
    """The permitted ones, and their places among all."""
    forced: Literal["required", "named"] | None
    """The text is calls and nothing else; of a named tool, one call."""
    is_parallel: bool
    """Whether there may be several calls."""
    is_choice: bool = False
    """Whether the model was told of others, which it may not call."""

    @property
    def held_by(self) -> str | None:
        """The field that asks for a form; None where any text will do."""
        if self.forced is not None or self.is_choice:
            return "tool_choice"
        strict = (place for place, tool in self.tools if tool.function.strict)
        place = next(strict, None)
        if place is not None:
            return f"tools[{place}].function.strict"
        # A bare object is one call at most.
        is_free = self.is_parallel or self.format == "bare"
        return None if is_free else "parallel_tool_calls"

    def form(self) -> StructuredOutputs | None:
        """What holds the text; None where any will do.

        Raises:
            InvalidRequestError: If the schemas together are too long, or one is no schema.
        """
        if self.held_by is None:
            return None
        return StructuredOutputs(grammar=self._grammar())

    def schema(self, tool: ToolBody) -> dict[str, Any]:
        """What a tool's arguments must fit."""
        function = tool.function
        if self.forced is None and not function.strict:
            return _ANY_OBJECT
        # As OpenAI has it, a function without parameters takes none.
        return _NOTHING if function.parameters is None else function.parameters | _ANY_OBJECT

    def _grammar(self) -> str:
        rules = [f"call_{place}: {self._call(tool)}" for place, tool in self.tools]
        body = " | ".join(f"call_{place}" for place, _ in self.tools)
        if self.format == "tags":
            rules.append(f'body: "\\n" ({body}) "\\n</tool_call>"')
            more = r' ("\n<tool_call>" body)*' if self.is_parallel else ""
            first, rest = '"<tool_call>"', f" body{more}"
        else:
            first, rest = f"({body})", ""
        if self.forced is not None:
            return "\n".join([f"start: {first}{rest}", *rules])
        rules.append(_PLAIN[self.format])
        if self.format == "tags":
            rules.append("text[lazy]: /(?s:.*)<tool_call>/")
            first = "text"
        return "\n".join([f'start: "" | PLAIN | {first}{rest}', *rules])

    def _call(self, tool: ToolBody) -> str:
        begin = f'{{"name": "{tool.function.name}", "{_ARGUMENTS[self.format]}": '
        schema = json.dumps(self.schema(tool) | {"x-guidance": _WRITTEN})
        # Only texts have this sign; a grammar is searched for options of rules, which have it too.
        schema = schema.replace("=", "\\u003d")
        return f'{json.dumps(begin)} %json {schema} "}}"'


def check_choice(body: ChatRequest) -> None:
    """Refuse a choice that no tool fits.

    Raises:
        ApiError: If a call is forced without tools, or of none of them.
    """
    if body.tool_choice in (None, "auto", "none"):
        return
    names = [tool.function.name for tool in body.tools or ()]
    if not names:
        raise refused("tool_choice", "is about calls, and there are no tools: give tools")
    odd = next((name for name in _named(body) if name not in names), None)
    if odd is not None:
        here = ", ".join(dict.fromkeys(names))
        raise refused("tool_choice", f"must name one of tools ({here:.120}), got {odd!r:.80}")


def _named(body: ChatRequest) -> list[str]:
    """The functions that a choice names."""
    choice = body.tool_choice
    if isinstance(choice, NamedTool):
        return [choice.function.name]
    if isinstance(choice, SomeTools):
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return []


def calling_of(body: ChatRequest, prompt: str) -> Calling:
    """How the tools of a request may be called.

    Args:
        body: With tools, and a choice that fits them.
        prompt: As the template writes it, tools included.

    Raises:
        ApiError: If the arguments that a tool is held to are no object.
    """
    tools = list(enumerate(body.tools or ()))
    choice, names = body.tool_choice, _named(body)
    if names:
        tools = [one for one in tools if one[1].function.name in names]
    mode = choice.allowed_tools.mode if isinstance(choice, SomeTools) else choice
    forced = "required" if mode == "required" else None
    forced = "named" if isinstance(choice, NamedTool) else forced
    # A named function is called once, as OpenAI has it.
    is_parallel = body.parallel_tool_calls is not False and forced != "named"
    for place, tool in tools:
        if forced is not None or tool.function.strict:
            _check_parameters(place, tool)
    return Calling(format_of(prompt), tools, forced, is_parallel, is_choice=bool(names))


def _check_parameters(place: int, tool: ToolBody) -> None:
    kind = (tool.function.parameters or _ANY_OBJECT).get("type", "object")
    if kind != "object":
        name = f"tools[{place}].function.parameters"
        raise refused(name, f"must be the schema of an object, got type {kind!r:.60}")


def refusal_of_tools(engine: Engine, calling: Calling, why: InvalidRequestError) -> ApiError | None:
    """A refusal of the form of calls, as one of the tool whose schema is to blame.

    Args:
        engine: For which the form was to be compiled.
        calling: Whose form it is.
        why: The engine's refusal of all of it.

    Returns:
        None where the engine refuses something else.
    """
    told = str(why)
    if not told.startswith("structured_outputs.grammar "):
        return None
    told = told.removeprefix("structured_outputs.grammar ")
    # To look for the one that takes too long would take as long again.
    for place, tool in () if "to compile: make it" in told else calling.tools:
        found = _fault_of(engine, calling.schema(tool))
        if found is not None:
            return refused(f"tools[{place}].function.parameters", found)
    return refused("tools", f"cannot be held to: their grammar {told}")


def _fault_of(engine: Engine, schema: dict[str, Any]) -> str | None:
    """Why the engine refuses one schema, if it does."""
    try:
        form = StructuredOutputs(json=schema)
        engine.prepare([0], SamplingParams(max_tokens=1, structured_outputs=form))
    except InvalidRequestError as error:
        return str(error).removeprefix("structured_outputs.json ")
    return None
