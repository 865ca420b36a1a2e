"""A progress bar on stderr while a model is fetched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from draftsmith.models.pull import PullProgress

__all__ = ["pull_progress"]


@contextmanager
def pull_progress() -> Iterator[Callable[["PullProgress"], None]]:
    """Give a callback that draws the bar; nothing is drawn unless there is something to fetch."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
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
        progress.stop()
