"""What stderr shows of work that takes long: a bar on a terminal, now and then a line elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from draftsmith.cli.messages import is_quiet
from draftsmith.cli.terminal import harmless

if TYPE_CHECKING:
    from rich.progress import Progress

    from draftsmith.models.pull import PullProgress

__all__ = ["Work", "loading", "pull_progress", "span", "stages", "steps", "working"]

OnProgress = Callable[["PullProgress"], None]
DELAYS = (5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds before each line; the last one again and again. What is soon done says nothing."""
_FRESH_S = 1.0
"""An estimate from less than this would be a guess."""


class Work:
    """One thing that is being done, how far it has come, and how long it still takes."""

    def __init__(self, what: str, total: int | None = None, unit: str = "steps") -> None:
        self.what = what
        self.done = 0
        self.total = total
        self.unit = unit
        self.sure_after = 1
        """Units that must be done before an estimate is more than a guess."""
        self._start = time.monotonic()
        self._uncounted_s = 0.0
        self._uncounted_since: float | None = None
        self._bar: _Bar | None = None

    def update(
        self, what: str | None = None, done: int | None = None, total: int | None = None
    ) -> None:
        """Say how far it has come; None leaves a value as it is."""
        self.what = self.what if what is None else what
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        if self._bar is not None:
            self._bar.show(self)

    def count_time(self, is_counted: bool) -> None:
        """Whether the time from now on goes into the estimate; a warm-up's does not."""
        now = time.monotonic()
        self._uncounted_s += self._uncounted(now)
        self._uncounted_since = None if is_counted else now

    def _uncounted(self, now: float) -> float:
        """Seconds of what does not count and is not over yet."""
        return 0.0 if self._uncounted_since is None else now - self._uncounted_since

    def begin(self, what: str, total: int | None = None, unit: str = "steps") -> None:
        """Turn to another thing, whose time counts from now."""
        self.what, self.done, self.total, self.unit = what, 0, total, unit
        self._start, self._uncounted_s, self._uncounted_since = time.monotonic(), 0.0, None
        if self._bar is not None:
            self._bar.show(self)

    def stop(self) -> None:
        """Show nothing more: something else writes to the terminal now."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @contextmanager
    def aside(self) -> Generator[None]:
        """Make room on the terminal while something is written to stdout."""
        bar = self._bar if sys.stdout is not None and sys.stdout.isatty() else None
        if bar is None:
            yield
            return
        bar.stop()
        yield
        bar.start()

    def in_words(self) -> str:
        """Such as "certify: 3 of 12 steps, about 2 min left"."""
        elapsed = f"{span(time.monotonic() - self._start)} so far"
        return f"{self.what}: {', '.join(filter(None, (self.count(), self._left() or elapsed)))}"

    def count(self) -> str:
        """How many of how many; empty where nobody knows."""
        if self.total is None:
            return ""
        if self.unit == "bytes":
            return f"{self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"
        return f"{self.done:,} of {self.total:,} {self.unit}"

    def outlook(self) -> str:
        """The count and what is left, for a bar."""
        return ", ".join(filter(None, (self.count(), self._left())))

    def _left(self) -> str:
        now = time.monotonic()
        elapsed = now - self._start - self._uncounted_s - self._uncounted(now)
        if self.total is None or self.done < self.sure_after or elapsed < _FRESH_S:
            return ""
        return f"about {span(elapsed * (self.total - self.done) / self.done)} left"


def span(seconds: float) -> str:
    """A time as one would say it, such as "40 s", "3 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def working(what: str, total: int | None = None, unit: str = "steps") -> Generator[Work]:
    """Show a piece of work for as long as it takes; silent under --quiet.

    Args:
        what: Its name, for people.
        total: How many units there are; None where nobody knows.
        unit: What is counted; "bytes" are shown as megabytes.
    """
    work = Work(what, total, unit)
    if is_quiet() or sys.stderr is None:
        yield work
        return
    # Not `is_terminal`, which FORCE_COLOR sets for a pipe.
    if not sys.stderr.isatty():
        with _lines(work):
            yield work
        return
    work._bar = _Bar(work)  # pyright: ignore[reportPrivateUsage] # the two are one thing
    try:
        yield work
    finally:
        work.stop()


@contextmanager
def loading(name: str) -> Generator[OnProgress]:
    """Say that a model is being loaded; gives the callback that tells of a fetch."""
    with working(f"loading {name}") as work:
        yield _fetching(work, f"loading {name}")


@contextmanager
def pull_progress(name: str) -> Generator[OnProgress]:
    """Give a callback that shows how a fetch gets on."""
    with working(f"pulling {name}") as work:
        yield _fetching(work, None)


@contextmanager
def steps(
    what: str, total: int, unit: str = "steps", sure_after: int = 1
) -> Generator[Callable[..., None]]:
    """Give a function to be called before each step, with what it does.

    With `is_counted=False` what begins is no step, and its time is left out of the estimate.

    Args:
        what: The whole, for people.
        total: How many steps there are.
        unit: What a step is.
        sure_after: Steps that must be done before the time that is left is told.
    """
    with working(what, total, unit) as work:
        work.sure_after = sure_after
        done = -1  # the first call has finished no step
        is_step = True

        def step(description: str, *, is_counted: bool = True) -> None:
            nonlocal done, is_step
            done = max(0, done + 1 if is_step else done)
            is_step = is_counted
            work.count_time(is_counted)
            work.update(f"{what} ({description})", min(done, total))

        yield step


@contextmanager
def stages(what: str) -> Generator[Callable[[str, int, int], None]]:
    """Give a function to be called with the stage, its steps done and all of them.

    Args:
        what: The whole, for people.
    """
    with working(what) as work:

        def on_step(stage: str, done: int, total: int) -> None:
            name = f"{what} ({stage})"
            if work.what != name:
                work.begin(name, total)
            work.update(done=done, total=total)

        yield on_step


def _fetching(work: Work, after: str | None) -> OnProgress:
    """Show each stage of a fetch as a piece of work of its own."""
    stages: set[tuple[str, str]] = set()

    def on_progress(state: "PullProgress") -> None:
        stage = (state.name, state.stage.value)
        if stage not in stages:
            stages.add(stage)
            work.begin(f"{state.stage.value} {state.name}", state.num_bytes_total, "bytes")
        work.update(done=state.num_bytes_done)
        if after is not None and state.stage.value == "verifying" and _is_whole(state):
            work.begin(after)

    return on_progress


def _is_whole(state: "PullProgress") -> bool:
    return state.num_bytes_done >= state.num_bytes_total


@contextmanager
def _lines(work: Work) -> Generator[None]:
    """Write a line now and then, from a thread: the work itself may be one long call."""
    is_done = threading.Event()

    def write() -> None:
        delays: Iterator[float] = chain(DELAYS, repeat(DELAYS[-1]))
        while not is_done.wait(next(delays)):
            sys.stderr.write(f"draftsmith: {work.in_words()}\n")
            sys.stderr.flush()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


class _Bar:
    """A moving bar on the terminal."""

    def __init__(self, work: Work) -> None:
        self._progress = _rich_progress()
        self._task = self._progress.add_task("", total=work.total, count="")
        self.show(work)
        self.start()

    def show(self, work: Work) -> None:
        """Draw what the work says of itself."""
        fields: dict[str, Any] = {"description": harmless(work.what), "count": work.outlook()}
        self._progress.update(self._task, total=work.total, completed=work.done, **fields)

    def start(self) -> None:
        """Draw it, or draw it again."""
        self._progress.start()

    def stop(self) -> None:
        """Take it away."""
        self._progress.stop()


def _rich_progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        # Else what is meant for stdout would be drawn on stderr, above the bar.
        redirect_stdout=False,
        redirect_stderr=False,
    )
