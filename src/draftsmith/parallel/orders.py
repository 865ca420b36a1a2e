"""What rank 0 does to a shared object, every other rank does to its own, in the same order.

Only rank 0 knows of requests, texts and clocks. What touches a device (a pass, a page table, a
round's graph) is a method of a `Shared` object that is marked `together`: before rank 0 runs it,
the others are told to. Nothing is answered, so that rank 0 can run ahead; where an answer is
needed, `Orders.ask` waits for all.
"""

import contextlib
import functools
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import (
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    runtime_checkable,
)

from draftsmith.errors import ParallelError

__all__ = ["Orders", "Reference", "Shared", "Wire", "make_beside", "obey", "together"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Shared")


@runtime_checkable
class Wire(Protocol):
    """One end of what joins rank 0 and another rank: whole messages, in order."""

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        ...

    def receive(self) -> bytes:
        """Wait for a message.

        Raises:
            EOFError: The other end is gone.
        """
        ...


class Reference(NamedTuple):
    """A shared object, in an order's arguments."""

    number: int


class _Made(NamedTuple):
    """An order to make a shared object."""

    number: int
    factory: Callable[..., object]
    args: tuple[object, ...]


class _Call(NamedTuple):
    """An order to call a method of a shared object."""

    number: int
    method: str
    args: tuple[object, ...]
    is_asked: bool


class _Dropped(NamedTuple):
    """A shared object that nobody needs any more."""

    number: int


class Shared:
    """What every rank has one of; its `together` methods run on all."""

    told: "Told | None" = None
    """Rank 0's way to the others' objects; None where there are none."""


@dataclass(frozen=True)
class Told:
    """Which object of the other ranks a shared object of rank 0 is, and who tells them."""

    orders: "Orders"
    number: int


class Orders:
    """Rank 0's end: tells the other ranks what to do.

    Args:
        wires: To each of them, in the order of their ranks.
        check: Raises if a rank has failed.
    """

    def __init__(self, wires: Sequence[Wire], check: Callable[[], None] = lambda: None) -> None:
        self._wires = wires
        self.check = check
        self.lock = threading.RLock()
        """Held from an order until rank 0 has done the same: one order of everything for all."""
        self._depth = 0
        self._next = 0

    def make(self, factory: Callable[..., S], *args: object) -> S:
        """Make a shared object on every rank, this one included.

        Args:
            factory: Of a module, so that it can be named.
            args: Its arguments; shared objects among them become each rank's own.

        Raises:
            ParallelError: A rank could not; all have let go of it.
        """
        with self.lock:
            number = self._next
            self._next += 1
            with self._giving(_Made(number, factory, _named(args))):
                made, failure = _attempted(lambda: factory(*args))
            answers = [*self._answers(), failure]
            problem = next((one for one in answers if one is not None), None)
            if problem is not None:
                self._tell(_Dropped(number))
                if failure is not None:
                    raise failure
                raise ParallelError(str(problem))
        assert made is not None
        made.told = Told(self, number)
        return made

    def ask(self, shared: "Shared", method: str, *args: object) -> list[Any]:
        """Call a method on every rank; what each returns, rank 0's first.

        Raises:
            ParallelError: A rank has failed.
        """
        assert shared.told is not None
        with self.lock:
            with self._giving(_Call(shared.told.number, method, _named(args), is_asked=True)):
                own = getattr(type(shared), method)(shared, *args)
            return [own, *self._answers()]

    @contextlib.contextmanager
    def _giving(self, order: object) -> Generator[None]:
        """Tell the others, and do it here, before anything else is told."""
        with self.lock:
            if self._depth:
                # Part of what they were told.
                yield
                return
            self.check()
            with _uninterrupted():
                self._tell(order)
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def giving(
        self, told: Told, method: str, args: tuple[object, ...]
    ) -> contextlib.AbstractContextManager[None]:
        """The block of a `together` method on rank 0."""
        return self._giving(_Call(told.number, method, _named(args), is_asked=False))

    def _tell(self, order: object) -> None:
        message = pickle.dumps(order)
        for wire in self._wires:
            try:
                wire.send(message)
            except OSError as error:
                self.check()
                raise ParallelError(f"a rank is gone ({error}): load the model again") from error

    def _answers(self) -> list[Any]:
        found: list[Any] = []
        for wire in self._wires:
            try:
                found.append(pickle.loads(wire.receive()))
            except (EOFError, OSError) as error:
                self.check()
                raise ParallelError("a rank is gone: load the model again") from error
        return found


def make_beside(other: Shared, factory: Callable[..., S], *args: object) -> S:
    """Make a shared object on the ranks that have another; here alone, where there are no others.

    Args:
        other: Which ranks.
        factory: Of a module, so that it can be named.
        args: Its arguments.

    Raises:
        ParallelError: A rank could not.
    """
    told = other.told
    return factory(*args) if told is None else told.orders.make(factory, *args)


def together(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Mark a method of a `Shared` class: what rank 0 calls, every rank calls.

    Its arguments are plain numbers, tuples and the like, given by place.
    """

    @functools.wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        told = self.told
        if told is None:
            return method(self, *args, **kwargs)
        assert not kwargs
        with told.orders.giving(told, method.__name__, args):
            return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[S, P], R], call)


def obey(wire: Wire) -> None:
    """Do as rank 0 does, until it is gone.

    Args:
        wire: To rank 0.
    """
    held: dict[int, Any] = {}

    def own(args: tuple[object, ...]) -> list[object]:
        return [held[one.number] if isinstance(one, Reference) else one for one in args]

    while True:
        try:
            order = pickle.loads(wire.receive())
        except EOFError:
            return
        match order:
            case _Made(number, factory, args):
                made, failure = _attempted(lambda f=factory, a=args: f(*own(a)))
                if made is not None:
                    held[number] = made
                wire.send(pickle.dumps(None if failure is None else str(failure)))
            case _Call(number, method, args, is_asked):
                found = getattr(held[number], method)(*own(args))
                if is_asked:
                    wire.send(pickle.dumps(found))
            case _Dropped(number):
                held.pop(number, None)
            case _:
                raise AssertionError(order)


def _named(args: tuple[object, ...]) -> tuple[object, ...]:
    """Arguments as they travel: a shared object by its number."""
    return tuple(
        Reference(one.told.number) if isinstance(one, Shared) and one.told is not None else one
        for one in args
    )


def _attempted(act: Callable[[], R]) -> tuple[R | None, Exception | None]:
    try:
        return act(), None
    except Exception as error:  # whatever it is, every rank must hear of it
        return None, error


@contextlib.contextmanager
def _uninterrupted() -> Generator[None]:
    """Let Ctrl-C wait: a rank that has told the others must do its own part."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[tuple[Any, Any]] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append((number, frame))

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            before(*noted[0])
