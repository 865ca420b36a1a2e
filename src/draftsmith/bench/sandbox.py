"""Runs a program that a model wrote: in a process of its own, with limits.

A guard against accidents, not against malice: limits on time, memory and file size, an empty
folder, no standard input, no environment, and (where the system allows it) no network and no sight
of other processes. Code of an attacker belongs in a virtual machine.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

__all__ = ["Limits", "Outcome", "has_namespaces", "run_program"]


class Outcome(StrEnum):
    """What became of a program."""

    PASSED = "passed"
    """It ran to its end."""
    FAILED = "failed"
    """An exception ended it; a wrong answer is an AssertionError."""
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    EXITED = "exited"
    """It left before its end, by `sys.exit` or a signal."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    timeout_s: float = 10.0
    memory_bytes: int = 2 * 2**30
    """Of address space."""
    file_bytes: int = 2**20


_ISOLATE = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")

# The limits are set by the process itself, before it reads the program. Only the end of the
# program writes the secret word: `sys.exit(0)` in the middle is no success.
_RUNNER = """
import resource, sys
word, memory, seconds, size = sys.argv[1], *map(int, sys.argv[2:5])
for name, limit in (("AS", memory), ("CPU", seconds), ("FSIZE", size), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
with open("program.py", encoding="utf-8") as file:
    source = file.read()
sys.argv[1:] = []
try:
    exec(compile(source, "program.py", "exec"), {"__name__": "program"})
    said = "passed"
except SystemExit:
    said = "exited"
except MemoryError:
    said = "out of memory"
except BaseException:
    said = "failed"
with open("outcome", "w", encoding="utf-8") as file:
    file.write(word + " " + said)
"""


def run_program(source: str, limits: Limits) -> Outcome:
    """Run Python code in a process of its own; everything that it leaves behind is removed.

    Args:
        source: The whole program.
        limits: What it may use.
    """
    folder = Path(tempfile.mkdtemp(prefix="draftsmith-program-"))
    try:
        # Half a surrogate pair is no UTF-8; as code it could not have run either.
        (folder / "program.py").write_text(source, encoding="utf-8", errors="replace")
        return _run(folder, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def has_namespaces() -> bool:
    """Whether the system lets us run a program without network, apart from other processes."""
    try:
        done = subprocess.run([*_ISOLATE, "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _run(folder: Path, limits: Limits) -> Outcome:
    word = secrets.token_hex(16)
    numbers = (limits.memory_bytes, int(limits.timeout_s) + 1, limits.file_bytes)
    prefix = _ISOLATE if has_namespaces() else ()
    command = [*prefix, sys.executable, "-I", "-c", _RUNNER, word, *map(str, numbers)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(limits.timeout_s)
    except subprocess.TimeoutExpired:
        return Outcome.TIMED_OUT
    finally:
        # Its children as well: they share its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _outcome(folder / "outcome", word, process.returncode)


def _outcome(file: Path, word: str, status: int) -> Outcome:
    try:
        said, _, outcome = file.read_text(encoding="utf-8").partition(" ")
    except (OSError, UnicodeDecodeError):
        said, outcome = "", ""
    if said == word:
        return Outcome(outcome)
    is_cpu = status in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
    return Outcome.TIMED_OUT if is_cpu else Outcome.EXITED
