"""Servers to measure, each as a process: ours in several settings, and llama.cpp's."""

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.llamacpp import peer_configs
from draftsmith.models.reference import local_path, resolve

__all__ = ["Arm", "Running", "Served", "all_arms", "started"]


@dataclass(frozen=True)
class Served:
    """The models that every arm serves, and how."""

    target: str
    """Of the catalogue, or a GGUF file."""
    draft: str
    """A model, or prompt-lookup."""
    threads: int
    context: int
    """Tokens of one sequence; llama.cpp sets its slots' memory aside."""

    @property
    def draft_path(self) -> Path | None:
        """The draft's file; None if no model drafts."""
        return None if self.draft in ("prompt-lookup", "free") else local_path(resolve(self.draft))


@dataclass(frozen=True)
class Arm:
    """One server in one setting."""

    name: str
    arguments: tuple[str, ...] = ()
    """Of `draftsmith serve`."""
    peer: str | None = None
    """A name of llama.cpp's settings instead."""

    def body(self, prompt: str, max_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        """A request whose text has just so many tokens; the whole vocabulary is sampled."""
        asked: dict[str, Any] = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "ignore_eos": True,
        }
        if self.peer is not None:
            asked["samplers"] = ["temperature"] if temperature else ["top_k"]
            asked |= {"top_k": 0 if temperature else 1, "cache_prompt": False}
        return asked


@dataclass(frozen=True)
class Running:
    """A server that takes requests."""

    address: str
    process: "subprocess.Popen[str]"

    @property
    def peak_bytes(self) -> int:
        """The most memory that it has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


def all_arms(served: Served) -> list[Arm]:
    """Ours, and every setting of llama.cpp's that is worth trying."""
    # As llama.cpp's: every request reads its own prompt.
    draft = ("--no-prefix-caching", "--draft", served.draft)
    free = ("--no-prefix-caching", "--draft", "free")
    ours = [
        Arm("off", ("--no-prefix-caching", "--draft", "none")),
        Arm("fixed", (*draft, "--gamma", "4")),
        Arm("auto", (*draft, "--gamma", "auto")),
        Arm("free fixed", (*free, "--gamma", "8")),
        Arm("free", (*free, "--gamma", "auto")),
    ]
    configs = peer_configs(served.draft_path)
    return [*ours, *(Arm(f"llama.cpp {one.name}", peer=one.name) for one in configs)]


@contextlib.contextmanager
def started(arm: Arm, served: Served, streams: int) -> Generator[Running]:
    """Start a server with a place for each stream; it is ended with the block."""
    command = _peer(arm, served, streams) if arm.peer else _ours(arm, served, streams)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            told = ""
            for line in process.stdout:
                told += line
                if found := re.search(r"http://[\w.]+:\d+", line):
                    yield Running(found[0], process)
                    return
            log.seek(0)
            raise RuntimeError(f"{arm.name} did not start: {told}{log.read()[-2000:]}")
        finally:
            process.kill()
            process.communicate()


def _ours(arm: Arm, served: Served, streams: int) -> list[str]:
    command = (
        f"exec '{sys.executable}' -m draftsmith serve --port 0 --log-file /dev/null \"$@\" 2>&1"
    )
    numbers = {"--max-batch-size": streams, "--max-waiting": 4096, "--threads": served.threads}
    options = [text for pair in numbers.items() for text in map(str, pair)]
    options = ["--target", served.target, *options, *arm.arguments]
    return ["sh", "-c", command, "serve", *options]


def _peer(arm: Arm, served: Served, streams: int) -> list[str]:
    assert arm.peer is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    numbers = {"slots": streams, "context": served.context, "threads": served.threads}
    options = [text for name, value in (numbers | {"port": port}).items()
               for text in (f"--{name}", str(value))]  # fmt: skip
    if served.draft_path is not None:
        options += ["--draft", str(served.draft_path)]
    path = local_path(resolve(served.target))
    return [sys.executable, "-m", "benchmarks.serve_peer", str(path), arm.peer, *options]
