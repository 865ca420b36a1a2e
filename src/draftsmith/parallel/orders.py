"""What rank 0 does to a shared object, every other rank does to its own, in the same order.

Only rank 0 knows of requests, texts and clocks. What touches a device (a pass, a page table, a
round's graph) is a method of a `Shared` object that is marked `together`: before rank 0 runs it,
the others are told to. Nothing is answered, so that rank 0 can run ahead; where an answer is
needed, `Orders.ask` waits for all.

A call that one rank refuses (`DraftsmithError`), every rank must refuse, before it exchanges
anything; after whatever else a rank raises, its group has failed.
"""

import contextlib
import functools
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast

from draftsmith.errors import DraftsmithError, InvalidRequestError, ParallelError
from draftsmith.parallel.failures import Failures
from draftsmith.parallel.messages import (
    Answer,
    Call,
    Drop,
    End,
    Make,
    Reference,
    Refuse,
    Wire,
    is_of_exchange,
    told_error,
)
from draftsmith.parallel.obeying import attempted
from draftsmith.parallel.uninterrupted import uninterrupted

__all__ = ["Orders", "Shared", "Told", "make_beside", "together"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Shared")

_PATIENCE_S = 60.0
_SETTLING_S = 5.0


class Shared:
    """What every rank has one of; its `together` methods run on all."""

    told: "Told | None" = None
    """Rank 0's way to the others' objects; None where there are none."""

    def let_go(self) -> None:
        """The group ends: drop what torch's process group must outlive, such as its graphs."""


@dataclass(frozen=True)
class Told:
    """Which object of the other ranks a shared object of rank 0 is, and who tells them."""

    orders: "Orders"
    number: int


class Orders:
    """Rank 0's end: tells the other ranks what to do.

    Args:
        wires: To each of them, in the order of their ranks.
        failures: What has gone wrong, of which others may know first; None is nothing yet.
    """

    def __init__(self, wires: Sequence[Wire], failures: Failures | None = None) -> None:
        self._wires = wires
        self.failures = failures or Failures()
        self.lock = threading.RLock()
        """Held from an order until rank 0 has done the same: one order of everything for all."""
        self._is_giving = False
        self._next = 0
        self._dropped: deque[int] = deque()
        """Objects that rank 0 has let go of, which the others are to be told."""
        self._made: weakref.WeakSet[Shared] = weakref.WeakSet()

    def check(self) -> None:
        """Make sure that no rank has failed.

        Raises:
            ParallelError: One has, and the models of the group must be loaded again.
        """
        self.failures.check()

    def make(self, factory: Callable[..., S], *args: object) -> S:
        """Make a shared object on every rank, this one included.

        The other ranks keep theirs for as long as anybody here keeps this one. A factory that can
        fail does so before it exchanges anything.

        Args:
            factory: Of a module, so that it can be named.
            args: Its arguments; shared objects among them become each rank's own.

        Raises:
            ParallelError: A rank could not; all have let go of it.
        """
        with self.lock:
            assert not self._is_giving, "the others make nothing amid what they were told"
            number = self._next
            self._next += 1
            with self._giving(Make(number, factory, _named(args))):
                made, failure = attempted(lambda: factory(*args))
                problems = [one.problem for one in self._answers(failure)]
                if failure is not None or any(problems):
                    self._tell(Drop(number))
                else:
                    assert made is not None
                    made.told = Told(self, number)
                    self._made.add(made)
                    # At once: Ctrl-C may end this call, and nobody would have the object.
                    weakref.finalize(made, self._dropped.append, number).atexit = False
            if failure is not None:
                raise failure
            if any(problems):
                raise ParallelError(self._first(problems))
        assert made is not None
        return made

    def ask(self, shared: "Shared", method: str, *args: object) -> list[Any]:
        """Call a method on every rank; what each returns, rank 0's first.

        Raises:
            ParallelError: A rank has failed.
        """
        assert shared.told is not None
        with self.lock:
            assert not self._is_giving, "the others answer nothing amid what they were told"
            with self._giving(Call(shared.told.number, method, _named(args), is_asked=True)):
                own, failure = attempted(lambda: getattr(shared, method)(*args))
                answers = self._answers(failure)
            problems = [one.problem for one in answers]
            if isinstance(failure, DraftsmithError) and all(problems):
                raise failure
            if failure is not None:
                self._lose(failure)
            if any(problems):
                self.failures.fail(self._first(problems))
            self.check()
            return [own, *(one.found for one in answers)]

    def giving(
        self, told: Told, method: str, args: tuple[object, ...]
    ) -> contextlib.AbstractContextManager[None]:
        """The block of a `together` method on rank 0."""
        return self._giving(Call(told.number, method, _named(args), is_asked=False))

    def let_go(self) -> None:
        """Let every object of this rank drop what torch's process group must outlive."""
        for shared in list(self._made):
            shared.let_go()

    def end(self) -> None:
        """Say that there are no more orders.

        Raises:
            ParallelError: A rank has failed.
        """
        with self.lock:
            self._tell(End())

    def disown(self, reason: str) -> None:
        """In a forked child: these wires are the parent's, and so may be the lock."""
        self.failures = Failures()
        self.failures.fail(reason)
        self.lock = threading.RLock()

    @contextlib.contextmanager
    def _giving(self, order: object) -> Generator[None]:
        """Tell the others, and do it here, before anything else is told."""
        with self.lock:
            if self._is_giving:
                # Part of what they were told.
                yield
                return
            self.check()
            with uninterrupted():
                self._is_giving = True
                try:
                    self._tell_dropped()
                    self._tell(order)
                    yield
                except DraftsmithError as error:
                    if self.failures.reason is None:
                        self._tell(Refuse(str(error)))
                    raise
                except Exception as error:
                    self._lose(error)
                except BaseException as error:
                    self.failures.fail(_lost(error))
                    raise
                finally:
                    self._is_giving = False

    def _lose(self, error: Exception) -> NoReturn:
        """End the group after an error of rank 0: the others may have gone on."""
        # A rank's end is felt here (a broken exchange, a fault of a device that it shared memory
        # with) before it is known which rank that was.
        is_exchange = is_of_exchange(error)
        self.failures.settle(_SETTLING_S if is_exchange else min(1.0, _SETTLING_S))
        if self.failures.reason is None and not is_exchange:
            self.failures.fail(_lost(error))
            raise error
        self.failures.fail(_lost(error))
        raise ParallelError(self.failures.reason) from None

    def _tell(self, order: object) -> None:
        message = pickle.dumps(order)
        for rank, wire in enumerate(self._wires, 1):
            try:
                wire.send(message)
            except OSError:
                self._gone(rank)

    def _tell_dropped(self) -> None:
        while self._dropped:
            self._tell(Drop(self._dropped.popleft()))

    def _answers(self, failure: Exception | None) -> list[Answer]:
        """What the others say.

        Args:
            failure: What rank 0 has met, which leaves it no time to wait for a rank that waits
                for rank 0.
        """
        found: list[Answer] = []
        for rank, wire in enumerate(self._wires, 1):
            if failure is not None and not wire.wait(_PATIENCE_S):
                self.failures.fail(
                    f"{self._name(rank)} did not follow a failure of rank 0 ({told_error(failure)})"
                )
                raise failure
            try:
                found.append(pickle.loads(wire.receive()))
            except (EOFError, OSError):
                self._gone(rank)
        return found

    def _gone(self, rank: int) -> NoReturn:
        """Raise what is known of a rank that is gone."""
        self.failures.settle(_SETTLING_S)
        self.failures.fail(f"{self._name(rank)} is gone")
        raise ParallelError(self.failures.reason) from None

    def _first(self, problems: Sequence[str | None]) -> str:
        rank, problem = next((i, one) for i, one in enumerate(problems, 1) if one is not None)
        return f"{self._name(rank)}: {problem}"

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {len(self._wires) + 1}"


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


def _named(args: tuple[object, ...]) -> tuple[object, ...]:
    """Arguments as they travel: a shared object by its number."""
    return tuple(_reference(one) if isinstance(one, Shared) else one for one in args)


def _reference(shared: Shared) -> Reference:
    if shared.told is None:
        raise InvalidRequestError(
            "a model of this process alone cannot run with one of several: load both alike"
        )
    return Reference(shared.told.number)


def _lost(error: BaseException) -> str:
    return f"rank 0 failed amid what all ranks do ({told_error(error)})"
