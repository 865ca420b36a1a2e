"""What stands before the routes: keys, the size of bodies and their time, and the log."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from draftsmith.serve.errors import ApiError, ErrorResponse
from draftsmith.serve.logs import REQUESTS

__all__ = ["BodyGuard", "KeyGuard", "RequestLog"]

_OPEN = frozenset({"/", "/health", "/ready", "/version"})
_PATIENCE = 8
"""Times the largest body that is read, and thrown away: a client that is hung up on while it sends
hears of no reason."""
_OPEN_FOLDER = "/static/"


class KeyGuard:
    """Opens the API to those who have a key.

    Keys are compared by their digests, every one of them, so that the time tells nothing.

    Args:
        app: What is guarded.
        keys: Any of them opens it.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 401."""
        if scope["type"] != "http" or _is_open(scope["path"]) or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "a key is needed: send it as Authorization: Bearer KEY",
            code="invalid_api_key",
        )
        await ErrorResponse(error)(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(key.strip())
        # No early end: each is compared whatever the others gave.
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        return any(found) and kind.lower() == "bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


class BodyGuard:
    """Reads a request's body before anybody else, within a size and a time.

    Args:
        app: What is guarded.
        max_bytes: More are answered 413.
        timeout_s: A body that takes longer is answered 408.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through with its body, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive)
        except TimeoutError:
            error = ApiError(408, f"the body did not come within {self._timeout_s:g} s")
            await _last(error)(scope, receive, send)
        except ApiError as error:
            await _last(error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replaying(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client went away."""
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > _PATIENCE * self._max_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size <= self._max_bytes:
                parts.append(part)
            is_last = not message.get("more_body", False)
            if size > self._max_bytes and (is_last or size > _PATIENCE * self._max_bytes):
                raise self._too_large()
            if is_last:
                return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body must be at most {self._max_bytes} bytes", code="body_too_large"
        )


def _last(error: ApiError) -> ErrorResponse:
    """The answer to a request that was not read to its end: the connection cannot go on."""
    return ErrorResponse(error, {"Connection": "close"})


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and then whatever comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


class RequestLog:
    """Gives each request an id, and logs a line when it has ended.

    Args:
        app: What is logged.
        on_failure: Told the status of every error.
    """

    def __init__(self, app: ASGIApp, on_failure: Callable[[int], None]) -> None:
        self._app = app
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        fields: dict[str, Any] = {"id": f"req_{secrets.token_hex(12)}"}
        scope.setdefault("state", {})["log"] = fields

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = fields["id"]
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            if status >= 400:
                self._on_failure(status)
            seconds = round(time.perf_counter() - start, 6)
            line = {"method": scope["method"], "path": scope["path"], "status": status}
            REQUESTS.info("request", extra={"fields": {**line, "seconds": seconds, **fields}})
