"""Responses: whole, and as named events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, FinishReason, TokenTrace
from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.tokens import origin_of, without_end
from draftsmith.serve.call import Event
from draftsmith.serve.errors import ApiError
from draftsmith.serve.streaming import frame

__all__ = ["ResponseShape"]


class ResponseShape:
    """OpenAI's response objects: one message of text.

    Args:
        about: Which request, and what its answer tells.
        told: What of the request the answer repeats.
    """

    def __init__(self, about: About, told: Mapping[str, Any]) -> None:
        self._about = about
        self._request = told
        self._item_id = f"msg_{about.id.rpartition('_')[2]}"
        self._number = -1
        """Of the last event."""
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []

    def opening(self, num_choices: int) -> Iterator[bytes]:
        """That it has begun, and its one message with it."""
        del num_choices
        response = self._response("in_progress", [], None)
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        item = self._message("in_progress", [])
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._part_event("response.content_part.added", part=_part("", []))

    def pieces(self, event: Event) -> Iterator[bytes]:
        """What a round brought; nothing if there is nothing to tell."""
        about = self._about
        traces = event.rounds.traces() if about.tells_tokens else ()
        entries = self._entries(traces, event.completion)
        self._text += event.text
        self._logprobs += entries
        told: dict[str, Any] = {}
        if about.has_origins and traces:
            told["speculation"] = [origin_of(trace, about.texts) for trace in traces]
        if event.text or entries or told:
            yield self._part_event(
                "response.output_text.delta", delta=event.text, logprobs=entries, **told
            )

    def closing(self, completions: Sequence[Completion], usage: dict[str, Any]) -> Iterator[bytes]:
        """The whole text, part, message and response."""
        text, logprobs = self._text, self._logprobs
        yield self._part_event("response.output_text.done", text=text, logprobs=logprobs)
        yield self._part_event("response.content_part.done", part=_part(text, logprobs))
        response = self.whole(completions, usage)
        item = response["output"][0]
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """The end of one that cannot go on, in both ways that OpenAI's client knows."""
        response = self._response("failed", [], None)
        response["error"] = {"code": "server_error", "message": error.message}
        yield self._event("response.failed", response=response)
        yield frame(error.body)

    def whole(self, completions: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer as one object."""
        [done] = completions
        is_cut = done.finish_reason is FinishReason.LENGTH
        status = "incomplete" if is_cut else "completed"
        traces = done.trace if self._about.tells_tokens else ()
        part = _part(done.text, self._entries(traces, done))
        if self._about.has_origins:
            part["speculation"] = [origin_of(trace, self._about.texts) for trace in traces]
        return self._response(status, [self._message(status, [part])], usage)

    def _entries(
        self, traces: Sequence[TokenTrace], done: Completion | None
    ) -> list[dict[str, Any]]:
        if not self._about.has_logprobs:
            return []
        return [self._about.texts.chat_logprobs(trace) for trace in without_end(traces, done)]

    def _response(
        self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        about = self._about
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": about.id,
            "object": "response",
            "created_at": about.created,
            "model": about.model,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "output": output,
            "usage": None if usage is None else _usage(usage),
            **self._request,
        }

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part_event(self, kind: str, **values: Any) -> bytes:  # noqa: ANN401 - JSON
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **values)

    def _event(self, kind: str, **values: Any) -> bytes:  # noqa: ANN401 - JSON
        self._number += 1
        return frame({"type": kind, "sequence_number": self._number, **values}, kind)


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The counts by the names that responses have for them."""
    told = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": usage["prompt_tokens_details"],
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
    return told | ({"speculation": usage["speculation"]} if "speculation" in usage else {})
