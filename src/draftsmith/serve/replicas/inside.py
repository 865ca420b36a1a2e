"""An app that runs in a process without a socket: a request goes in, its messages come out."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from fastapi import FastAPI
from starlette.types import Message, Scope

__all__ = ["Inside"]


class Inside:
    """Runs an app's requests in the running event loop.

    Args:
        app: Nobody else starts it.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Do what an app does before its first request."""
        await self._stack.enter_async_context(self._app.router.lifespan_context(self._app))

    async def messages(self, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        """What the app sends in answer to a request; to leave it is to go away as a client."""
        sent: asyncio.Queue[Message | None] = asyncio.Queue()
        received: asyncio.Queue[Message] = asyncio.Queue()
        received.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def run() -> None:
            try:
                await self._app(dict(scope), received.get, sent.put)
            finally:
                sent.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            while (message := await sent.get()) is not None:
                yield message
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
