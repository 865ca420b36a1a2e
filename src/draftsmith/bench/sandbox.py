"""Runs a program that a model wrote, and its test: two processes of their own, with limits.

What holds everywhere: limits on time, memory and file size, an empty folder, no standard input, no
environment, and a verdict that the program cannot give: its test runs in another process, which
asks the program's for values and alone can reach the pipe of the verdict.

What holds where the system allows it, and is said by `isolation`:

- `network`: none is there (a namespace).
- `processes`: no other is seen (a namespace), so none can be looked into or ended.
- `files`: all are read-only (a mount namespace). They can be read.
- `disk`: the folder is a disk of its own, of limited size and number of files.
- `new processes`: none can be started, and no privilege gained (seccomp); threads can.

A guard for programs of models. Code of an attacker belongs in a virtual machine.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from draftsmith.bench.programs import Program
from draftsmith.errors import DraftsmithError

__all__ = ["Limits", "Outcome", "isolation", "run_program"]


class Outcome(StrEnum):
    """What became of a program."""

    PASSED = "passed"
    """Its test ran to its end."""
    FAILED = "failed"
    """It raised, or an answer was wrong."""
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
    """Of one file."""
    disk_bytes: int = 2**24
    """Of all files, where `isolation` says `disk`."""


_ISOLATE = (
    *("unshare", "--user", "--map-root-user", "--net", "--pid", "--mount", "--ipc", "--uts"),
    *("--fork", "--kill-child"),
)
_RUNNER = Path(__file__).with_name("confined.py")
_GRACE_S = 5.0
"""For a program's process to say how it ended, once its test saw that it is gone."""
_PROBE_S = 60.0
"""For a process that only starts and ends, on a machine that is busy."""


def run_program(program: Program, limits: Limits) -> Outcome:
    """Run a program and its test; everything that they leave behind is removed.

    Args:
        program: The whole program, and what it must pass.
        limits: What it may use.

    Raises:
        DraftsmithError: If the processes could not be confined as `isolation` says.
    """
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        code = _Confined(stack, "code", ours, limits, program._asdict())
        test = _Confined(stack, "test", theirs, limits, program._asdict())
        # Else neither would see that the other has gone.
        ours.close()
        theirs.close()
        verdict = test.ended(limits.timeout_s)
        if verdict in ("passed", "failed"):
            return Outcome(verdict)
        if verdict is None:
            return Outcome.TIMED_OUT
        said = code.ended(_GRACE_S)
        if "not confined" in (said, verdict):
            raise DraftsmithError(
                "the program could not be confined as this system did a moment ago: run it again"
            )
        return _why_gone(said, code.status)


@cache
def isolation() -> Mapping[str, bool]:
    """What holds on this system, by the names of the module's docstring.

    Raises:
        DraftsmithError: If not even a plain process of ours can be started.
    """
    for has_namespaces in (True, False):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, ValueError):
            job = {"has_namespaces": has_namespaces}
            probe = _Confined(stack, "probe", None, Limits(), job)
            found: Mapping[str, bool] = json.loads(probe.ended(_PROBE_S) or "{}")
            if found:
                return found
    raise DraftsmithError(
        f"no program can be run confined: {sys.executable} did not start {_RUNNER.name}: run "
        "draftsmith with a Python that starts as a program"
    )


def _why_gone(said: str | None, status: int | None) -> Outcome:
    if said in (Outcome.FAILED, Outcome.EXITED, Outcome.OUT_OF_MEMORY):
        return Outcome(said)
    is_cpu = status in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
    return Outcome.TIMED_OUT if is_cpu or said is None else Outcome.EXITED


class _Confined:
    """One process, ended with the stack that it is entered into."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        role: str,
        line: socket.socket | None,
        limits: Limits,
        job: Mapping[str, Any],
    ) -> None:
        folder = tempfile.mkdtemp(prefix="draftsmith-program-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._reader, writer = os.pipe()
        stack.callback(os.close, self._reader)
        has_namespaces: bool = job.get("has_namespaces", role != "probe" and isolation()["network"])
        held = {} if role == "probe" else dict(isolation())
        lines = [] if line is None else [line.fileno()]
        whole = {
            **job,
            **asdict(limits),
            "seconds": int(limits.timeout_s) + 1,
            "folder": folder,
            "has_namespaces": has_namespaces,
            "held": held,
            "said": writer,
            "line": lines[0] if lines else None,
        }
        prefix = _ISOLATE if has_namespaces else ()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-I", str(_RUNNER), role],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[writer, *lines],
        )
        stack.callback(self._end)
        os.close(writer)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            # Half a surrogate pair is no UTF-8, but JSON can spell it.
            stdin.write(json.dumps(whole).encode())

    @property
    def status(self) -> int | None:
        """Of the process, once it has ended."""
        return self._process.returncode

    def ended(self, timeout_s: float) -> str | None:
        """What it said at its end, empty for nothing; None if it did not end in time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return os.read(self._reader, 1000).decode(errors="replace")

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
