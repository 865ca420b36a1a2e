"""Connections on which no request comes: uvicorn would keep them for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["patient_for"]


def patient_for(timeout_s: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, which hangs up if a request's headers are not there after so long."""

    class Patient(HttpToolsProtocol):
        """Waits so long for the headers of each request."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            super().connection_made(transport)
            self._timer = self.loop.call_later(timeout_s, self.transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            # The first request's time runs from the connection on.
            if self._timer is None:
                self._timer = self.loop.call_later(timeout_s, self.transport.close)

        def on_headers_complete(self) -> None:
            self._stop()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Patient
