"""How much stderr says: nothing but errors, the usual, or what goes on inside."""

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from draftsmith.cli.options import MESSAGES, Flag
from draftsmith.cli.terminal import styled_console, text_for, write_stderr
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DEFAULT_MESSAGES", "MessageOptions", "is_quiet", "is_verbose", "notes", "warn"]

_LOGGER = logging.getLogger("draftsmith")
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


@Parameter(name="*", group=MESSAGES)
@dataclass(frozen=True, kw_only=True)
class MessageOptions:
    """What stderr says.

    Parameters
    ----------
    quiet
        No progress and no statistics; errors, and that a text is not exact, are still told.
    verbose
        Tell what is loaded and the seed; twice also how it runs, and what every round brings.
    """

    quiet: Annotated[Flag, Parameter(alias="-q")] = False
    verbose: Annotated[int, Parameter(alias="-v", count=True, negative="", show_default=False)] = 0

    def apply(self) -> None:
        """Let it hold for this run of the command line.

        Raises:
            InvalidRequestError: If both are given.
        """
        if self.quiet and self.verbose:
            raise InvalidRequestError("--quiet and --verbose contradict each other: give one")
        _State.is_quiet, _State.verbosity = self.quiet, self.verbose
        for handler in [one for one in _LOGGER.handlers if isinstance(one, _Handler)]:
            _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(_LEVELS[min(self.verbose, 2)])
        if self.verbose:
            _LOGGER.addHandler(_Handler())


DEFAULT_MESSAGES = MessageOptions()


class _State:
    """Of this process: one command line runs in it at a time."""

    is_quiet = False
    verbosity = 0


class _Handler(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs only
    """Log records on whatever stderr is at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        """The record as stderr should get it: it may carry a file's name."""
        return text_for(self.stream, super().format(record))


def is_quiet() -> bool:
    """Whether progress and statistics are left out."""
    return _State.is_quiet


def is_verbose() -> bool:
    """Whether more than the usual is told."""
    return _State.verbosity > 0


def warn(text: str) -> None:
    """Tell on stderr what no --quiet should hide."""
    write_stderr(f"draftsmith: {' '.join(text.split())}\n")


def notes() -> "Console":
    """Where statistics and remarks go: stderr, or nowhere under --quiet."""
    return styled_console(highlight=False, soft_wrap=True, quiet=is_quiet())
