"""Answers in chunks of one form, which chat and text completions share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, TokenTrace
from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.tokens import origin_of, without_end
from draftsmith.serve.call import Event
from draftsmith.serve.errors import ApiError
from draftsmith.serve.streaming import DONE, frame

__all__ = ["ChunkedShape"]


class ChunkedShape(ABC):
    """Writes a request's events as chunks, and its completions as one object.

    Args:
        about: Which request, and what its answer tells.
        kind: What OpenAI calls the whole object.
        chunk_kind: What it calls a chunk.
    """

    def __init__(self, about: About, kind: str, chunk_kind: str) -> None:
        self._about = about
        self._kind = kind
        self._chunk_kind = chunk_kind

    @abstractmethod
    def _opening(self, index: int) -> dict[str, Any]:
        """What the first chunk says of a choice."""

    @abstractmethod
    def _piece(self, index: int, text: str, done: Completion | None) -> dict[str, Any]:
        """What a chunk says of new text."""

    @abstractmethod
    def _whole(self, index: int, done: Completion) -> dict[str, Any]:
        """What the whole object says of a choice."""

    @abstractmethod
    def _logprobs(self, index: int, traces: Sequence[TokenTrace]) -> dict[str, Any]:
        """Log-probabilities of some tokens of a choice."""

    def opening(self, num_choices: int) -> Iterator[bytes]:
        """The first chunk, which names every choice."""
        # OpenAI's client counts a choice's first log-probabilities twice where it is not in here.
        choices = [_choice(index, None) | self._opening(index) for index in range(num_choices)]
        yield self._chunk(choices)

    def pieces(self, event: Event) -> Iterator[bytes]:
        """What a round brought; nothing if there is nothing to tell."""
        done = event.completion
        traces = event.rounds.traces() if self._about.tells_tokens else ()
        told = self._told(event.choice, traces, done)
        if event.text or done is not None or told:
            piece = self._piece(event.choice, event.text, done)
            yield self._chunk([_choice(event.choice, done) | piece | told])

    def closing(self, completions: Sequence[Completion], usage: dict[str, Any]) -> Iterator[bytes]:
        """The end of a stream, with what was used if that was asked for."""
        del completions
        if self._about.has_usage:
            head = self._about.head(self._chunk_kind)
            yield frame(head | {"choices": [], "usage": usage})
        yield DONE

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """The end of a stream that cannot go on; OpenAI's client raises it."""
        yield frame(error.body)

    def whole(self, completions: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer as one object."""
        choices: list[dict[str, Any]] = []
        for index, done in enumerate(completions):
            traces = done.trace if self._about.tells_tokens else ()
            told = self._told(index, traces, done)
            choices.append(_choice(index, done) | self._whole(index, done) | told)
        return self._about.head(self._kind) | {"choices": choices, "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        chunk = self._about.head(self._chunk_kind) | {"choices": choices}
        return frame(chunk | {"usage": None} if self._about.has_usage else chunk)

    def _told(
        self, index: int, traces: Sequence[TokenTrace], done: Completion | None
    ) -> dict[str, Any]:
        """Of single tokens. It stands beside the delta: clients add up numbers in there."""
        about, told = self._about, dict[str, Any]()
        shown = without_end(traces, done)
        if about.has_logprobs and shown:
            told["logprobs"] = self._logprobs(index, shown)
        if about.has_origins and traces:
            told["speculation"] = [origin_of(trace, about.texts) for trace in traces]
        return told


def _choice(index: int, done: Completion | None) -> dict[str, Any]:
    """What every choice says; an unfinished one has no reason to have ended."""
    choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": None}
    if done is not None:
        choice |= {"finish_reason": done.finish_reason.value, "stop_reason": done.stop_reason}
    return choice
