"""Take away what a pull has put on this disk."""

import shutil
from pathlib import Path

import filelock

from draftsmith.errors import ModelNotFoundError, PullError
from draftsmith.models.catalogue import CatalogueEntry, find_entry
from draftsmith.models.home import home

__all__ = ["num_bytes_here", "remove"]


def num_bytes_here(entry: CatalogueEntry) -> int:
    """Bytes on this disk of a catalogue model, whole or in part."""
    folder = _folder(entry)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(name: str) -> int:
    """Remove a catalogue model from this disk, a half-fetched one too.

    Args:
        name: A catalogue name.

    Returns:
        How many bytes it took.

    Raises:
        ModelNotFoundError: The name is not in the catalogue, or nothing of it is here.
        PullError: It is being pulled, or the disk refuses.
    """
    entry = find_entry(name)
    num_bytes = num_bytes_here(entry)
    if not num_bytes:
        raise ModelNotFoundError(f"model {name!r} is not here: nothing to remove")
    lock = filelock.FileLock(_folder(entry) / f"{entry.filename}.lock")
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(_folder(entry))
    except filelock.Timeout as error:
        raise PullError(f"model {name!r} is being pulled: end that, or wait for it") from error
    except OSError as error:
        raise PullError(
            f"cannot remove {_folder(entry)}: {error.strerror}: make it writable"
        ) from error
    return num_bytes


def _folder(entry: CatalogueEntry) -> Path:
    return home() / "models" / entry.name
