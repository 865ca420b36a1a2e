"""What every rank but the first does: as it is told."""

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from draftsmith.errors import DraftsmithError, ParallelError
from draftsmith.parallel.messages import (
    Answer,
    Call,
    Drop,
    End,
    Make,
    Reference,
    Refuse,
    Wire,
    told_error,
)

__all__ = ["attempted", "obey"]

R = TypeVar("R")

_PATIENCE_S = 60.0


def obey(wire: Wire) -> None:
    """Do as rank 0 does, until it says that there is nothing more to do.

    Args:
        wire: To rank 0.

    Raises:
        EOFError: Rank 0 is gone.
        ParallelError: This rank did not do as rank 0 did.
        Exception: Whatever a call raised that was no refusal.
    """
    follower = _Follower(wire)
    while follower.follow(pickle.loads(wire.receive())):
        pass


class _Follower:
    """Keeps this rank's shared objects, and nothing else from one order to the next."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._held: dict[int, Any] = {}
        self._refused: DraftsmithError | None = None

    def follow(self, order: object) -> bool:
        """Do as an order says; whether there may be more of them."""
        if self._refused is not None and not isinstance(order, Refuse):
            raise ParallelError(f"it alone refused a call ({self._refused})") from self._refused
        match order:
            case Make():
                self._make(order)
            case Call():
                self._call(order)
            case Refuse(message):
                if self._refused is None:
                    raise ParallelError(f"rank 0 alone refused a call ({message})")
                self._refused = None
            case Drop(number):
                self._held.pop(number, None)
            case _:
                assert isinstance(order, End)
                return False
        return True

    def _make(self, order: Make) -> None:
        made, failure = attempted(lambda: order.factory(*self._own(order.args)))
        self._answer(Answer(None, None if failure is None else told_error(failure)))
        if failure is None:
            self._held[order.number] = made
        elif not self._wire.wait(_PATIENCE_S):
            # Rank 0 may wait for this one in the same factory: it must hear of it.
            raise failure

    def _call(self, order: Call) -> None:
        method = getattr(self._held[order.number], order.method)
        if order.is_asked:
            found, failure = attempted(lambda: method(*self._own(order.args)))
            self._answer(Answer(found, None if failure is None else told_error(failure)))
            return
        try:
            method(*self._own(order.args))
        except DraftsmithError as error:
            self._refused = error

    def _own(self, args: tuple[object, ...]) -> list[object]:
        return [self._held[one.number] if isinstance(one, Reference) else one for one in args]

    def _answer(self, answer: Answer) -> None:
        try:
            self._wire.send(pickle.dumps(answer))
        except OSError as error:
            raise EOFError("rank 0 is gone") from error


def attempted(act: Callable[[], R]) -> tuple[R | None, Exception | None]:
    """What a function returns, and what it raises."""
    try:
        return act(), None
    except Exception as error:  # whatever it is, every rank must hear of it
        return None, error
