"""Whether every rank of a group has the same program and the same model, asked when one is loaded.

Of a weight file, its size, its header and 64 pieces of 64 KiB are compared, at places that are the
same on every rank. A change of the weights between those pieces that leaves the size as it is,
nobody sees: a file that was copied wrongly in one block, or a fine-tune of a few rows.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from draftsmith.errors import ModelFormatError, ParallelError
from draftsmith.parallel.orders import Orders, Shared

__all__ = ["Facts", "ModelFile", "check_agreement", "difference", "digest"]

_PIECES, _PIECE_BYTES = 64, 1 << 16


class ModelFile(NamedTuple):
    """A file that a model is read from.

    Attributes:
        path: On every rank.
        num_header_bytes: What is compared in full from its beginning on; None is all of it.
    """

    path: str
    num_header_bytes: int | None


class Facts(NamedTuple):
    """What must be the same on every rank.

    Attributes:
        draftsmith: Its version.
        torch: Its version.
        dtype: Of weights, activations and cache.
        files: Of each file of the model, by its name, a digest.
    """

    draftsmith: str
    torch: str
    dtype: str
    files: dict[str, str]


def check_agreement(orders: Orders, files: Sequence[ModelFile], dtype: str) -> None:
    """Compare what the ranks are about to load.

    Args:
        orders: To them.
        files: Of the model.
        dtype: As it is asked for.

    Raises:
        ParallelError: A rank has something else than rank 0, or cannot read a file; it says what.
        ModelFormatError: Rank 0 cannot read a file.
    """
    reader = orders.make(_Reader, tuple(files), dtype)
    mine, *others = orders.ask(reader, "facts")
    for rank, theirs in enumerate(others, 1):
        found = difference(mine, theirs)
        if found is not None:
            raise ParallelError(f"rank {rank} of {len(others) + 1} {found}")


def difference(mine: Facts, theirs: Facts) -> str | None:
    """What another rank has that rank 0 has not, and the remedy; None if they agree.

    Args:
        mine: Rank 0's.
        theirs: The other's.

    Example:
        >>> difference(Facts("1", "2.13", "float32", {}), Facts("1", "2.12", "float32", {}))
        'has torch 2.12, and rank 0 has 2.13: run the same on every rank'
    """
    for name in ("draftsmith", "torch", "dtype"):
        own, other = getattr(mine, name), getattr(theirs, name)
        if own != other:
            return f"has {name} {other}, and rank 0 has {own}: run the same on every rank"
    for path, own in mine.files.items():
        if theirs.files.get(path) != own:
            return f"reads another {path} than rank 0: give every rank the same files"
    return None


def digest(file: ModelFile) -> str:
    """A digest of a file's size, its header, and pieces of the rest.

    Raises:
        OSError: It cannot be read.
    """
    path = Path(file.path)
    size = path.stat().st_size
    header = size if file.num_header_bytes is None else min(size, file.num_header_bytes)
    found = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as opened:
        while (left := header - opened.tell()) > 0:
            found.update(opened.read(min(left, 1 << 20)))
        for piece in range(_PIECES):
            opened.seek(header + max(0, size - header - _PIECE_BYTES) * piece // (_PIECES - 1))
            found.update(opened.read(_PIECE_BYTES))
    return found.hexdigest()


class _Reader(Shared):
    """What one rank has."""

    def __init__(self, files: Sequence[ModelFile], dtype: str) -> None:
        try:
            digests = {one.path: digest(one) for one in files}
        except OSError as error:
            raise ModelFormatError(f"{error.filename} cannot be read ({error.strerror})") from error
        version = sys.modules["draftsmith"].__version__  # of the package, which is above this floor
        self._facts = Facts(version, torch.__version__, dtype, digests)

    def facts(self) -> Facts:
        """To be compared."""
        return self._facts
