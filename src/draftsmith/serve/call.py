"""Events of one request, handed from the engine's thread to the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from draftsmith.engine.requests.result import Completion
from draftsmith.engine.requests.traces import Rounds
from draftsmith.engine.scheduler import Ticket
from draftsmith.serve.errors import ApiError

__all__ = ["Call", "Event", "Spans"]


class Event(NamedTuple):
    """What one round brought to one choice."""

    choice: int
    text: str
    """Whole characters that can no longer become part of a stop string; may be empty."""
    rounds: Rounds
    completion: Completion | None
    """The whole choice, with its last event."""


class Spans(NamedTuple):
    """What a request has taken, in seconds; None where it has not come so far."""

    queue_s: float | None
    """Until its first text had a place in the batch."""
    first_s: float | None
    """Until its first token."""
    each_s: float | None
    """A token after the first, on average."""
    whole_s: float


class Call:
    """One request's texts in the engine's hands; read its events from the event loop."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = tuple(tickets)
        self.timer: asyncio.TimerHandle | None = None
        """What ends it at its deadline."""
        self.num_open = len(self.tickets)
        """Choices whose last event was not pushed yet."""
        self._events: deque[Event | ApiError] = deque()
        self._is_pushed = asyncio.Event()
        self._submitted_at = time.perf_counter()
        self._first_at: float | None = None
        self._last_at = self._submitted_at
        self._num_tokens = 0

    def push(self, event: Event | ApiError) -> None:
        """Add an event; in the event loop's thread. Behind the last one nothing is added."""
        if self.num_open <= 0:
            return
        if isinstance(event, ApiError):
            self.num_open = 0
        else:
            self._note(event)
        self._events.append(event)
        self._is_pushed.set()

    def spans(self) -> Spans:
        """What it has taken until its last event."""
        began = min((one.started_at for one in self.tickets if one.started_at), default=None)
        start, first = self._submitted_at, self._first_at
        many = self._num_tokens - 1
        return Spans(
            None if began is None else began - start,
            None if first is None else first - start,
            None if first is None or many < 1 else (self._last_at - first) / many,
            self._last_at - start,
        )

    def _note(self, event: Event) -> None:
        if event.completion is not None:
            self.num_open -= 1
        self._last_at = time.perf_counter()
        if event.rounds.tokens and self._first_at is None:
            self._first_at = self._last_at
        self._num_tokens += len(event.rounds.tokens)

    async def events(self) -> AsyncIterator[Event]:
        """All events, in order.

        Raises:
            ApiError: If the request cannot go on.
        """
        while self._events or self.num_open > 0:
            if not self._events:
                self._is_pushed.clear()
                await self._is_pushed.wait()
            event = self._events.popleft()
            if isinstance(event, ApiError):
                raise event
            yield event
