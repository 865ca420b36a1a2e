"""Ctrl-C while a text is made: the round in hand is finished, and what there is, kept."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from draftsmith.engine.generation import Generation
    from draftsmith.engine.requests.result import GenerationResult, StreamEvent

__all__ = ["follow"]


class _CtrlC:
    """Counts presses. The first waits for the round, unless there is nothing yet to keep."""

    def __init__(self) -> None:
        self.is_pressed = False
        self.has_output = False

    def press(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; a second press stops at once."""
        if self.is_pressed or not self.has_output:
            self.is_pressed = True
            raise KeyboardInterrupt
        self.is_pressed = True


def follow(run: "Generation", show: Callable[["StreamEvent"], None]) -> "list[GenerationResult]":
    """Run to the end, or to Ctrl-C; samples cut short are "abort".

    Args:
        run: A run of one prompt or several.
        show: Called with every event.
    """
    with _watching() as ctrl_c:
        try:
            for event in run:
                ctrl_c.has_output = True
                show(event)
                if ctrl_c.is_pressed:
                    break
        except KeyboardInterrupt:
            ctrl_c.is_pressed = True
        if ctrl_c.is_pressed:
            for event in run.abort():
                show(event)
    return run.results()


@contextmanager
def _watching() -> Generator[_CtrlC]:
    ctrl_c = _CtrlC()
    before = signal.signal(signal.SIGINT, ctrl_c.press)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)
