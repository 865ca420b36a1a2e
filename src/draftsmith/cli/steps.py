"""A bar on stderr for work of a known number of steps."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["steps"]


@contextmanager
def steps(total: int) -> Generator[Callable[[str], None]]:
    """Give a function to be called before each step, with what it does.

    Nothing is drawn where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        task = progress.add_task("", total=total)
        # The first call has finished no step.
        advances = iter([0])

        def step(description: str) -> None:
            progress.update(task, description=description, advance=next(advances, 1))

        yield step
