"""The server as a process: sockets, signals, and the way out."""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from draftsmith.errors import InvalidRequestError
from draftsmith.serve.errors import ApiError
from draftsmith.serve.patience import patient_for
from draftsmith.serve.service import Service
from draftsmith.serve.settings import ServeSettings

__all__ = ["Server", "serve"]

_log = logging.getLogger(__name__)
_MARGIN_S = 2.0
"""What it takes to tell the clients of the requests that were cut off."""


def serve(app: FastAPI, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        app: As `create_app` makes it.
        on_ready: Told the address as soon as requests are taken.

    Raises:
        InvalidRequestError: If the address cannot be listened on.
    """
    Server(app, on_ready).run()


class Server(uvicorn.Server):
    """A uvicorn server whose SIGTERM lets requests finish, or ends them, within a stated time.

    Args:
        app: As `create_app` makes it.
        on_ready: Told the address as soon as requests are taken.

    Raises:
        InvalidRequestError: If the address cannot be listened on.
    """

    def __init__(self, app: FastAPI, on_ready: Callable[[str], None]) -> None:
        self._service: Service = app.state.service
        self._on_ready = on_ready
        settings = self._service.settings
        self._listener = _listener(settings)
        config = uvicorn.Config(
            app,
            http=patient_for(settings.body_timeout_s),
            ws="none",
            # Not what else happens to be installed.
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.grace_s + _MARGIN_S),
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it, or `should_exit` is set."""
        super().run(sockets=sockets or [self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing more in; finish or cancel what there is."""
        worker, settings = self._service.worker, self._service.settings
        worker.refuse()
        loop = asyncio.get_running_loop()
        grace_s = settings.grace_s if settings.on_sigterm == "finish" else 0.0
        message = f"the server was shut down before the text was finished, {grace_s:g} s after"
        error = ApiError(503, f"{message} it was asked to", code="stopping")
        timer = loop.call_later(grace_s, worker.cancel_all, error)
        try:
            await super().shutdown(sockets=sockets)
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn does, but without raising the signals again: the exit status is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


def _listener(settings: ServeSettings) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With its protocol: of others asyncio does not know that they may send at once.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise InvalidRequestError(
            f"host {host} port {port} cannot be listened on ({error.strerror or error}): give "
            "another --port"
        ) from error
    listener.set_inheritable(False)
    return listener
