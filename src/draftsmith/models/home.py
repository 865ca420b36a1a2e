"""Where model files are kept on this machine, and whether the network may be used.

This is the one module outside `cli/` that reads the environment: a program that imports
draftsmith must find the files that the command line pulled, so both ask the same place.
"""

import os
from pathlib import Path

import platformdirs

__all__ = ["child_environment", "home", "is_offline", "make_home"]

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


def home() -> Path:
    """Return the folder that holds all that draftsmith keeps; it may not exist yet.

    Returns:
        `DRAFTSMITH_HOME` where that is set and not empty, else the user's cache folder.

    Example:
        >>> home().is_absolute()
        True
    """
    chosen = os.environ.get("DRAFTSMITH_HOME")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    return platformdirs.user_cache_path("draftsmith")


def make_home() -> Path:
    """Make the folder of `home()` for this user alone; one that is there keeps its rights.

    Raises:
        OSError: If it cannot be made.
    """
    place = home()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def is_offline() -> bool:
    """Tell whether `HF_HUB_OFFLINE` forbids the network, read as the Hub's own client reads it.

    Returns:
        True for `1`, `true`, `yes` and `on` in any case.
    """
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE_WORDS


def child_environment(temporary: Path) -> dict[str, str]:
    """Return this process's environment for a child whose temporary files go to `temporary`.

    Args:
        temporary: An existing folder. The system's own may be a small memory disk, and what
            lies in `temporary` can be watched and removed.

    Returns:
        A new mapping, all else as it is here: the user's proxy and pip settings hold.
    """
    return {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
