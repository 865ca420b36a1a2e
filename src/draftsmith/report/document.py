"""The JSON of a measurement: where it was taken, and an atomic way to disk."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from draftsmith.report.finite import finite
from draftsmith.report.html import cannot_write

__all__ = ["environment", "facts", "write_json"]

_PACKAGES = ("torch", "transformers", "numpy")


def environment() -> dict[str, Any]:
    """Hardware, versions, commit and date; None where the system does not say."""
    import torch

    from draftsmith import __version__

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    commit = _commit()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "is_clean": commit and not _git("status", "--porcelain", "--untracked-files=no"),
        "cpu": _cpu(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "gpu": ", ".join(torch.cuda.get_device_name(gpu) for gpu in gpus) or None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"draftsmith": __version__, **{name: _version(name) for name in _PACKAGES}},
    }


def facts(environment: Mapping[str, Any], command: str | None = None) -> dict[str, str]:
    """An environment in words, for a page.

    Args:
        environment: What `environment()` gave.
        command: The command line; None leaves it out.
    """
    versions: Mapping[str, str | None] = environment.get("versions") or {}
    memory = environment.get("memory_bytes")
    clean = "" if environment.get("is_clean") else " with changes"
    commit = environment.get("commit")
    shown = {
        "command": command,
        "processor": f"{environment.get('cpu')}, {environment.get('num_cpus')} cores",
        "memory": memory and f"{memory / 1e9:.1f} GB",
        "gpu": environment.get("gpu"),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "python": f"{environment.get('python')}, {environment.get('system')}",
        "commit": commit and f"{commit}{clean}",
        "date": environment.get("date"),
    }
    return {name: str(value) for name, value in shown.items() if value}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document whole or not at all; a number that JSON lacks becomes null.

    Args:
        path: A file that is there is replaced in one step.
        document: What `json` can write.

    Raises:
        InvalidRequestError: If the file cannot be written.
    """
    text = json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes files that only their owner reads.
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise cannot_write(path, "document", why) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()


def _version(package: str) -> str | None:
    """A package's version, from its metadata or from the module if it is loaded."""
    try:
        return version(package)
    except PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)


def _commit() -> str | None:
    """Of the checkout that this very code lies in; None if it was installed."""
    # Installed into a folder of someone else's repository, the commit would be theirs.
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return None
    return _git("rev-parse", "--short", "HEAD") or None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
