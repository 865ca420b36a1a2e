"""From a request's work to its answer, for as long as its client is there and its time lasts."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draftsmith.engine.requests.result import Completion, FinishReason
from draftsmith.serve.answers.usage import usage_of
from draftsmith.serve.call import Call, Event
from draftsmith.serve.errors import ApiError
from draftsmith.serve.service import Service
from draftsmith.serve.streaming import ClientGoneError, EventStream, unless_gone
from draftsmith.serve.translation import Work

__all__ = ["Asked", "Shape", "generate"]


class Shape(Protocol):
    """How an endpoint writes its answers."""

    def opening(self, num_choices: int) -> Iterator[bytes]:
        """What a stream begins with."""
        ...

    def pieces(self, event: Event) -> Iterator[bytes]:
        """What a round brought; nothing if there is nothing to tell."""
        ...

    def closing(self, completions: Sequence[Completion], usage: dict[str, Any]) -> Iterator[bytes]:
        """What a stream ends with."""
        ...

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """What a stream ends with that cannot go on."""
        ...

    def whole(self, completions: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer as one object."""
        ...


@dataclass(frozen=True)
class Asked:
    """How a request is answered."""

    is_streamed: bool
    has_statistics: bool
    has_prediction: bool
    timeout_s: float


async def generate(
    service: Service, request: Request, work: Work, shape: Shape, asked: Asked
) -> Response:
    """Answer a request.

    Raises:
        ApiError: If it cannot be served, or does not end well.
    """
    call = service.worker.submit(work.samples, asked.timeout_s)
    end = _Ending(service, call, work, request.scope["state"]["log"])
    if asked.is_streamed:
        events = _events(call, work, shape, asked, end)
        # A slow reader may take its time beyond the last token, but not for ever.
        return EventStream(events, end.close, 2 * asked.timeout_s)
    try:
        completions = await unless_gone(request.receive, _whole(call))
        end.note(completions)
    except ClientGoneError:
        return Response(status_code=499)
    finally:
        end.close()
    return JSONResponse(shape.whole(completions, _usage(work, completions, asked)))


@dataclass(frozen=True)
class _Ending:
    """What is to be done when a request has ended, however it did."""

    service: Service
    call: Call
    work: Work
    log: dict[str, Any]

    def note(self, completions: Sequence[Completion]) -> None:
        """It has ended well."""
        reasons = [one.finish_reason.value for one in completions]
        self.service.metrics.note_end(self.call, self.work.num_prompt_tokens, reasons)
        self.log["finish_reasons"] = reasons
        tokenizer = self.service.engine.tokenizer
        if self.service.settings.log_prompts:
            firsts = [sample.source or sample.prompt for sample in self.work.samples]
            firsts = firsts[:: self.work.n]
            self.log["prompts"] = [tokenizer.decode(one) if tokenizer else one for one in firsts]
            self.log["texts"] = [one.text for one in completions]

    def close(self) -> None:
        """Give its places back, and tell the log what it was."""
        self.service.worker.cancel(self.call)
        spans = self.call.spans()
        self.log.update(
            prompt_tokens=self.work.num_prompt_tokens,
            completion_tokens=sum(ticket.sample.num_output for ticket in self.call.tickets),
            queue_s=spans.queue_s,
            first_token_s=spans.first_s,
        )


async def _whole(call: Call) -> list[Completion]:
    """All choices, in order."""
    done: dict[int, Completion] = {}
    async for event in call.events():
        if event.completion is not None:
            _check(event.completion)
            done[event.choice] = event.completion
    return [done[choice] for choice in sorted(done)]


async def _events(
    call: Call, work: Work, shape: Shape, asked: Asked, end: _Ending
) -> AsyncIterator[bytes]:
    """The frames of a stream; one that fails ends with an error in the place of its end."""
    completions: dict[int, Completion] = {}
    for piece in shape.opening(len(call.tickets)):
        yield piece
    try:
        async for event in call.events():
            if event.completion is not None:
                _check(event.completion)
                completions[event.choice] = event.completion
            for piece in shape.pieces(event):
                yield piece
    except ApiError as error:
        for piece in shape.failure(error):
            yield piece
        return
    done = [completions[choice] for choice in sorted(completions)]
    end.note(done)
    for piece in shape.closing(done, _usage(work, done, asked)):
        yield piece


def _usage(work: Work, completions: Sequence[Completion], asked: Asked) -> dict[str, Any]:
    return usage_of(
        work.num_prompt_tokens,
        completions,
        n=work.n,
        has_prediction=asked.has_prediction,
        has_statistics=asked.has_statistics,
    )


def _check(done: Completion) -> None:
    """An unfinished text is no answer."""
    if done.finish_reason is FinishReason.ERROR:
        raise ApiError(500, done.error or "the text could not be finished", code="engine_error")
    if done.finish_reason is FinishReason.ABORT:
        raise ApiError(503, "the server is shutting down: ask another", code="stopping")
