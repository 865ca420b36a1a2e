"""Chat completions: whole, and in chunks."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, FinishReason, TokenTrace
from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.chunks import ChunkedShape
from draftsmith.serve.calling import Calling
from draftsmith.serve.tools import CallReader, Format, calls_in, safe_length

__all__ = ["ChatShape"]


class ChatShape(ChunkedShape):
    """OpenAI's chat completion objects.

    Args:
        about: Which request, and what its answer tells.
        calling: How the model may call tools, if it was told of any.
    """

    def __init__(self, about: About, calling: Calling | None = None) -> None:
        super().__init__(about, "chat.completion", "chat.completion.chunk")
        self._forced = None if calling is None else calling.forced
        self._tools: Format | None = None if calling is None else calling.format
        self._readers: defaultdict[int, CallReader] = defaultdict(CallReader)
        """Of forced calls, by choice."""
        self._texts: dict[int, str] = {}
        """Of each choice so far, where it may hold calls."""
        self._num_told: dict[int, int] = {}
        """Characters of it that were sent."""

    def _opening(self, index: int) -> dict[str, Any]:
        # Only here: clients join a role that comes again.
        content = "" if self._forced is None else None
        return {"delta": {"role": "assistant", "content": content}}

    def _piece(self, index: int, text: str, done: Completion | None) -> dict[str, Any]:
        if self._tools is None:
            return {"delta": {"content": text} if text else {}}
        if self._forced is not None:
            calls = self._readers[index].push(text)
            return {"delta": {"tool_calls": calls} if calls else {}} | self._end(index, done)
        whole = self._texts[index] = self._texts.get(index, "") + text
        start = self._num_told.get(index, 0)
        if done is None:
            end = max(start, safe_length(whole, self._tools))
            self._num_told[index] = end
            return {"delta": {"content": whole[start:end]} if end > start else {}}
        called = calls_in(whole, self._tools)
        delta: dict[str, Any] = {"content": rest} if (rest := called.content[start:]) else {}
        if not called.calls:
            return {"delta": delta}
        calls = [{"index": number, **call} for number, call in enumerate(called.calls)]
        return {"delta": delta | {"tool_calls": calls}, "finish_reason": "tool_calls"}

    def _whole(self, index: int, done: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": done.text, "refusal": None}
        if self._forced is not None:
            deltas = self._readers[index].push(done.text)
            calls = [{key: one[key] for key in one if key != "index"} for one in deltas]
            # A text that was cut before its first call has none.
            message |= {"content": None} | ({"tool_calls": calls} if calls else {})
            return {"message": message} | self._end(index, done)
        called = None if self._tools is None else calls_in(done.text, self._tools)
        if called is None or not called.calls:
            return {"message": message}
        message |= {"content": called.content or None, "tool_calls": called.calls}
        return {"message": message, "finish_reason": "tool_calls"}

    def _end(self, index: int, done: Completion | None) -> dict[str, Any]:
        """Why forced calls ended, where that is not why their text did."""
        is_ended = done is not None and done.finish_reason is FinishReason.STOP
        # OpenAI's API says "stop" of a named function's call.
        is_told = is_ended and self._forced == "required" and self._readers[index].is_whole
        return {"finish_reason": "tool_calls"} if is_told else {}

    def _logprobs(self, index: int, traces: Sequence[TokenTrace]) -> dict[str, Any]:
        texts = self._about.texts
        return {"content": [texts.chat_logprobs(trace) for trace in traces], "refusal": None}
