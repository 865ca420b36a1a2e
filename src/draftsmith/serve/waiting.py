"""How long until a place is free, from what the texts in hand have taken so far."""

import math
import time
from collections.abc import Sequence

from draftsmith.engine.scheduler import Ticket

__all__ = ["Waiting"]

_MEMORY = 0.1
"""Weight of the newest text in what is expected of the next."""


class Waiting:
    """Learns how long texts get and how fast they grow, and foretells when some have ended."""

    def __init__(self) -> None:
        self._seconds_per_token: float | None = None
        self._tokens: float | None = None
        """Of a text, from its start to its end."""

    def note_end(self, ticket: Ticket, now: float) -> None:
        """A text has ended; `now` is by `time.perf_counter`."""
        num_tokens = ticket.sample.num_output
        if ticket.started_at is None or not num_tokens:
            return
        each = (now - ticket.started_at) / num_tokens
        self._seconds_per_token = _blend(self._seconds_per_token, each)
        self._tokens = _blend(self._tokens, float(num_tokens))

    def seconds(self, tickets: Sequence[Ticket], places: int) -> int:
        """Whole seconds until so many of these have ended, at least 1.

        A running text is expected to get as long as the others did, or to its end if it is longer
        already.
        """
        now = time.perf_counter()
        running = [one for one in tickets if one.started_at is not None]
        each = self._seconds_per_token or _pace(running, now)
        left = sorted(self._left(ticket) for ticket in running)
        if not left:
            return 1
        # Beyond the texts that run, others must run first: whole batches of the usual length.
        rounds, place = divmod(max(places, 1) - 1, len(left))
        tokens = left[place] + rounds * (self._tokens or left[-1])
        return max(1, math.ceil(tokens * each))

    def _left(self, ticket: Ticket) -> float:
        room = float(ticket.sample.room)
        if self._tokens is None:
            return room
        usual = self._tokens - ticket.sample.num_output
        return min(usual, room) if usual > 0 else room


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _MEMORY * (new - old)


def _pace(running: Sequence[Ticket], now: float) -> float:
    """Seconds per token of what runs now; a guess where nothing has come yet."""
    spans = [
        (now - ticket.started_at) / ticket.sample.num_output
        for ticket in running
        if ticket.started_at is not None and ticket.sample.num_output
    ]
    return sum(spans) / len(spans) if spans else 0.02
