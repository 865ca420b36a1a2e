"""Server-sent events, and clients that go away before the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["DONE", "ClientGoneError", "EventStream", "frame", "unless_gone"]

DONE = b"data: [DONE]\n\n"
T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody is there to be answered."""


def frame(value: dict[str, Any], event: str | None = None) -> bytes:
    """One event; JSON in ASCII has no line break, and can hold half a surrogate pair."""
    name = "" if event is None else f"event: {event}\n"
    return f"{name}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


class EventStream(Response):
    """Sends events as they come, until the last one is sent or the client goes away.

    Args:
        events: What is sent.
        on_end: Called once, however it ends.
        timeout_s: A client that takes longer to read it all is left alone.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], on_end: Callable[[], None], timeout_s: float
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self._events = events
        self._on_end = on_end
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await unless_gone(receive, self._write(send))
        except (ClientGoneError, OSError, TimeoutError):
            # OSError is how servers say that the client has gone.
            return
        finally:
            self._on_end()

    async def _write(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do some work for a client; the request's body must have been read.

    Raises:
        ClientGoneError: If the client goes away; the work is cancelled.
    """
    worker = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise ClientGoneError
    finally:
        for task in (worker, watcher):
            task.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
