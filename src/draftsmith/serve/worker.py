"""The engine's own thread: requests come in from the event loop, their events go back to it."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence

from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.scheduler import Ticket
from draftsmith.errors import ParallelError
from draftsmith.serve.call import Call, Event
from draftsmith.serve.counts import Counts
from draftsmith.serve.errors import ApiError, refused
from draftsmith.serve.waiting import Waiting

__all__ = ["Worker"]

_log = logging.getLogger(__name__)
_LAST_ROUND_S = 10.0


class Worker:
    """Runs rounds for as long as there is a request, over one engine.

    All methods but the thread's own are for the event loop that `start` was called in.

    Args:
        engine: Nobody else may run it meanwhile.
        max_waiting: Texts that may wait for a place in the batch.
    """

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self.engine = engine
        self.max_waiting = max_waiting
        self.waiting = Waiting()
        self.counts = Counts()
        self._scheduler = engine.scheduler
        self._condition = threading.Condition()
        self._calls: dict[Ticket, tuple[Call, int]] = {}
        """Of each text that has not ended: its request, and which of its choices."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="draftsmith-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_failures = 0
        """Steps in a row that have raised."""

    def start(self) -> None:
        """Start the thread; events go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_refusing(self) -> bool:
        """Whether nothing more is taken in."""
        return self._is_stopping

    @property
    def capacity(self) -> int:
        """Texts that there may be at once, running and waiting."""
        return self.engine.max_batch_size + self.max_waiting

    @property
    def num_held(self) -> int:
        """Texts that have not ended."""
        return len(self._calls)

    @property
    def num_running(self) -> int:
        """Texts that have a place in the batch."""
        return sum(ticket.started_at is not None for ticket in tuple(self._calls))

    @property
    def num_tokens(self) -> int:
        """Tokens of the texts that have a place, prompts included."""
        held = tuple(self._calls)
        return sum(len(one.sample.tokens) for one in held if one.started_at is not None)

    def submit(self, samples: Sequence[Sample], timeout_s: float) -> Call:
        """Take a request's texts in.

        Args:
            samples: With nothing done yet.
            timeout_s: After so long the request ends with an error.

        Raises:
            ApiError: 429 if there is no room for them, 503 if the server is stopping.
        """
        with self._condition:
            if self._is_stopping:
                raise ApiError(503, "the server is shutting down: ask another", code="stopping")
            if len(samples) > self.capacity:
                asked = f"asks {len(samples)} texts, and there are {self.capacity} places: ask less"
                raise refused("n", asked)
            excess = len(self._calls) + len(samples) - self.capacity
            if excess > 0:
                wait_s = self.waiting.seconds(tuple(self._calls), excess)
                raise ApiError(
                    429,
                    f"{len(self._calls)} texts are running or waiting, and {self.capacity} may: "
                    f"come again in {wait_s} s",
                    code="queue_full",
                    retry_after_s=wait_s,
                )
            call = Call(self._scheduler.add(samples))
            for choice, ticket in enumerate(call.tickets):
                self._calls[ticket] = call, choice
            self._condition.notify()
        call.timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, call, timeout_s)
        return call

    def cancel(self, call: Call) -> None:
        """End a request, if it has not ended: its places are free after the round in hand."""
        if call.timer is not None:
            call.timer.cancel()
        with self._condition:
            gone = [ticket for ticket in call.tickets if self._calls.pop(ticket, None)]
        if gone:
            self._scheduler.cancel(gone)

    def _expire(self, call: Call, timeout_s: float) -> None:
        self.cancel(call)
        call.push(
            ApiError(
                504,
                f"the request took more than {timeout_s:g} s: ask fewer tokens, or a longer "
                "timeout",
                code="deadline_exceeded",
            )
        )

    def cancel_all(self, error: ApiError) -> None:
        """End every request with an error."""
        with self._condition:
            calls = {id(call): call for call, _ in self._calls.values()}
        for call in calls.values():
            self.cancel(call)
            call.push(error)

    def refuse(self) -> None:
        """Take nothing more in; what there is goes on."""
        self._is_stopping = True

    def stop(self) -> None:
        """End the thread, once the round in hand is over."""
        self.refuse()
        self.cancel_all(ApiError(503, "the server is shutting down: ask another", code="stopping"))
        with self._condition:
            self._condition.notify()
        if self._thread.is_alive():
            # A round that hangs must not keep the process; the thread is a daemon.
            self._thread.join(_LAST_ROUND_S)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping or self._calls)
                if self._is_stopping and not self._calls:
                    break
            self._step()
        with contextlib.suppress(ParallelError):
            self._scheduler.step()  # lets go of what was cancelled

    def _step(self) -> None:
        try:
            tickets = self._scheduler.step()
        except ParallelError as error:
            # No round ever works again: whoever watches the server's health starts it anew.
            _log.error("the model is gone: %s", error)
            self._give_up(error)
            return
        # Whatever a step raises ends requests, never the thread that all others wait for.
        except Exception as error:
            self._num_failures += 1
            _log.exception("a round failed")
            # The caches were let go of: most failures do not come again.
            if self._num_failures > 1:
                self._fail_newest(error)
            return
        self._num_failures = 0
        self._deliver(tickets)

    def _deliver(self, tickets: Sequence[Ticket]) -> None:
        """Hand the news of a step to the event loop, all at once."""
        events: list[tuple[Call, Event | ApiError]] = []
        with self._condition:
            for ticket in tickets:
                found = self._calls.get(ticket)
                if found is None:
                    continue
                call, choice = found
                while ticket.news:
                    news = ticket.news.popleft()
                    self.counts.add(news.rounds.records)
                    events.append((call, Event(choice, news.text, news.rounds, news.completion)))
                if ticket.has_left:
                    del self._calls[ticket]
                    self.waiting.note_end(ticket, time.perf_counter())
        self._push(events)

    def _push(self, events: list[tuple[Call, Event | ApiError]]) -> None:
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_push_all, events)

    def _give_up(self, error: Exception) -> None:
        """End every request, and then the thread."""
        self._is_stopping = True
        with self._condition:
            calls = {id(call): call for call, _ in self._calls.values()}
        for call in calls.values():
            self.cancel(call)
            self._push([(call, _failed(error))])

    def _fail_newest(self, error: Exception) -> None:
        """End the request that came into the batch last: whatever is wrong came with it."""
        with self._condition:
            if not self._calls:
                return
            newest = max(self._calls, key=lambda ticket: ticket.started_at or 0.0)
            call, _ = self._calls[newest]
        self.cancel(call)
        self._push([(call, _failed(error))])


def _failed(error: Exception) -> ApiError:
    message = " ".join(str(error).split()) or type(error).__name__
    return ApiError(500, f"the engine failed: {message:.300}")


def _push_all(events: list[tuple[Call, Event | ApiError]]) -> None:
    for call, event in events:
        call.push(event)
