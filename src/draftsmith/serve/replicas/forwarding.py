"""The door in front of the engines: it hands requests on, and asks another where one is lost."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from starlette.types import Message, Receive, Scope, Send

from draftsmith.serve.errors import ApiError, ErrorResponse
from draftsmith.serve.replicas.beginning import beginning_of
from draftsmith.serve.streaming import ClientGoneError, frame, unless_gone

__all__ = ["Ask", "Forward", "ReplicaLostError", "ReplicasFullError"]


class ReplicaLostError(Exception):
    """The engine's process ended before its answer did."""


class ReplicasFullError(Exception):
    """No engine has a place, and no more may wait."""


Ask: TypeAlias = Callable[[str | None, Scope, bytes], AsyncGenerator[Message]]
"""The messages that answer a request: its beginning, what it asks, its body."""
_HANDED_ON = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string")


class Forward:
    """An ASGI app that answers nothing by itself.

    Args:
        ask: Asks an engine.
        num_tries: Engines that are asked in turn where one is lost before its answer has begun.
    """

    def __init__(self, ask: Ask, num_tries: int = 3) -> None:
        self._ask = ask
        self._num_tries = num_tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        # The whole body is one message: a guard has read it.
        body = (await receive()).get("body", b"")
        try:
            await unless_gone(receive, self._answer(_plain(scope), scope, body, send))
        except ClientGoneError:
            return

    async def _answer(self, plain: Scope, scope: Scope, body: bytes, send: Send) -> None:
        key = beginning_of(body)
        for _ in range(self._num_tries):
            answer = _Answer(send)
            try:
                async with aclosing(self._ask(key, plain, body)) as messages:
                    async for message in messages:
                        await answer.take(message)
                return
            except ReplicaLostError:
                if answer.has_begun:
                    await answer.break_off()
                    return
            except ReplicasFullError:
                error = ApiError(
                    429,
                    "all engines are busy, and no more may wait: come again in 1 s",
                    code="queue_full",
                    retry_after_s=1,
                )
                await ErrorResponse(error)(scope, _nothing, send)
                return
        await ErrorResponse(_lost())(scope, _nothing, send)


class _Answer:
    """An answer as far as it has come; it begins when there is something of its body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._is_stream = False
        self.has_begun = False

    async def take(self, message: Message) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start":
            self._start = message
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._is_stream = kind.startswith(b"text/event-stream")
            return
        if self._start is not None:
            self.has_begun = True
            await self._send(self._start)
            self._start = None
        await self._send(message)

    async def break_off(self) -> None:
        """End a stream with an error; what is no stream is cut off, since its length is told."""
        if not self._is_stream:
            raise ReplicaLostError("an engine ended amid its answer")
        await self._send(
            {"type": "http.response.body", "body": frame(_lost().body), "more_body": False}
        )


def _lost() -> ApiError:
    return ApiError(
        503,
        "the engine that served this has ended: ask again",
        code="replica_lost",
        retry_after_s=1,
    )


def _plain(scope: Scope) -> dict[str, Any]:
    """What can be handed to another process."""
    plain = {name: scope[name] for name in _HANDED_ON if name in scope}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    client = scope.get("client")
    return plain | {"headers": headers, "client": client and tuple(client), "root_path": ""}


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
