"""Where what was converted from a GGUF file is kept, so that it is converted once."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from draftsmith.models.home import home

__all__ = ["converted_folder"]


def converted_folder(path: Path) -> Path:
    """Return where a file's config and tokenizer are kept; it may not exist yet.

    Args:
        path: An existing GGUF file: another size or time, or another version of `transformers`,
            which converts it, is another folder.
    """
    stat = path.stat()
    # The installed version: to import the library for it would take longer than all else here.
    text = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{version('transformers')}"
    return home() / "converted" / hashlib.sha256(text.encode()).hexdigest()[:24]
