"""What stderr shows while models are fetched and loaded."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from draftsmith.models.pull import PullProgress

__all__ = ["loading", "pull_progress"]

OnProgress = Callable[["PullProgress"], None]


@contextmanager
def loading(name: str) -> Generator[OnProgress]:
    """Say on a terminal that a model is being loaded; a fetch gets its bar."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    status = console.status(f"loading {escape(name)}")
    # Not `is_terminal`, which FORCE_COLOR sets for a pipe.
    if sys.stderr.isatty():
        status.start()

    with pull_progress() as show:

        def on_progress(state: "PullProgress") -> None:
            # Only one moving thing at a time may own the terminal.
            status.stop()
            show(state)

        try:
            yield on_progress
        finally:
            status.stop()


@contextmanager
def pull_progress() -> Generator[OnProgress]:
    """Give a callback that draws the bar; nothing is drawn unless there is something to fetch."""
    from rich.console import Console

    progress = _bar(Console(stderr=True))
    tasks: dict[tuple[str, str], int] = {}

    def show(state: "PullProgress") -> None:
        key = (state.name, state.stage)
        if key not in tasks:
            progress.start()
            for task in progress.task_ids:
                progress.update(task, visible=False)
            label = f"{state.stage.value} {state.name}"
            tasks[key] = progress.add_task(label, total=state.num_bytes_total)
        progress.update(progress.task_ids[tasks[key]], completed=state.num_bytes_done)

    try:
        yield show
    finally:
        # A bar that never started would still print an empty line.
        if tasks:
            progress.stop()


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
    )
