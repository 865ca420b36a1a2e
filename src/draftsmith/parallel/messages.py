"""What rank 0 and another rank say to each other, and how it travels."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from draftsmith.errors import DraftsmithError

__all__ = [
    "Answer",
    "Call",
    "Drop",
    "End",
    "Make",
    "Reference",
    "Refuse",
    "Wire",
    "is_of_exchange",
    "told_error",
]


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

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to receive, an end included; whether there is in time."""
        ...


class Reference(NamedTuple):
    """A shared object, in an order's arguments."""

    number: int


class Make(NamedTuple):
    """An order to make a shared object."""

    number: int
    factory: Callable[..., object]
    args: tuple[object, ...]


class Call(NamedTuple):
    """An order to call a method of a shared object."""

    number: int
    method: str
    args: tuple[object, ...]
    is_asked: bool


class Refuse(NamedTuple):
    """Rank 0 refused the call before: the other ranks must have, too."""

    message: str


class Drop(NamedTuple):
    """A shared object that nobody needs any more."""

    number: int


class End(NamedTuple):
    """There are no more orders."""


class Answer(NamedTuple):
    """What became of an order to make an object, or of a call that was asked."""

    found: object
    problem: str | None


def told_error(error: BaseException) -> str:
    """An error as another process hears of it, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, DraftsmithError):
        return text
    # What torch raises is a page long.
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def is_of_exchange(error: BaseException) -> bool:
    """Whether this is a broken exchange, which another rank's end may be the cause of."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)
