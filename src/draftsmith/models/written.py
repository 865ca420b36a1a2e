"""Files that are whole or not there: written beside their place, and moved into it."""

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

__all__ = ["written_whole"]


@contextlib.contextmanager
def written_whole(path: Path) -> Generator[Path, None, None]:
    """Lend a name to write to; after the block, the file takes the place of `path` in one step.

    Whoever is killed in between leaves the file that was there as it was, and who reads meanwhile
    sees the old one or the new one.

    Args:
        path: The place. What is there and no file (a pipe, a device) is written to as it is.

    Raises:
        OSError: As writing does.

    Example:
        >>> from pathlib import Path
        >>> with written_whole(Path("note.txt")) as place:
        ...     _ = place.write_text("whole")
        >>> Path("note.txt").read_text()
        'whole'
    """
    if path.exists() and not path.is_file():
        yield path
        return
    # A name of its own: two who write at once do not write into each other's file.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        yield beside
        with beside.open("rb") as file:
            # Else a power cut could keep the new name and lose the bytes.
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
