"""Rows that stay in their file, and are read one by one.

They are not mapped: a mapped file that another program cuts short ends the process with SIGBUS. A
file that was replaced is still the one that was opened, and one that was written to is refused.
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from draftsmith.errors import ModelFormatError

__all__ = ["FileRows"]


class FileRows:
    """Rows of equal size, one after another; the file stays open as long as this lives.

    Args:
        path: The file.
        offset: Bytes before the first row.
        num_rows: How many there are.
        row_bytes: What one takes.
        name: For messages.

    Raises:
        ModelFormatError: The file cannot be opened, or ends early.
    """

    def __init__(
        self, path: Path, offset: int, num_rows: int, row_bytes: int, name: str = "a tensor"
    ) -> None:
        self.row_bytes = row_bytes
        self.num_bytes = num_rows * row_bytes
        self._path, self._offset, self._name = path, offset, name
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        self._descriptor = file.fileno()
        self._close = weakref.finalize(self, file.close)
        self._stamp = self._now()
        if self._stamp[0] < offset + self.num_bytes:
            raise self._truncated()

    def read(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        """Some rows, `[ids, row_bytes]`.

        Raises:
            ModelFormatError: The file was written to since it was opened, or cannot be read.
        """
        rows = np.empty((len(ids), self.row_bytes), np.uint8)
        for row, number in zip(rows, ids, strict=True):
            self._fill(row, number * self.row_bytes)
        if self._now() != self._stamp:  # after the reads: nothing has come between
            raise ModelFormatError(
                f"{self._path} was written to while its model was in use: load the model again"
            )
        return rows

    def parts(self, part_bytes: int) -> Iterator[NDArray[np.uint8]]:
        """All of it in order, in parts of so many bytes, the last one shorter.

        Raises:
            ModelFormatError: The file ends early, or cannot be read.
        """
        for start in range(0, self.num_bytes, part_bytes):
            part = np.empty(min(part_bytes, self.num_bytes - start), np.uint8)
            self._fill(part, start)
            yield part

    def _fill(self, buffer: NDArray[np.uint8], start: int) -> None:
        view, done = buffer.data, 0
        while done < len(view):  # one call reads 2 GiB at most
            try:
                got = os.preadv(self._descriptor, [view[done:]], self._offset + start + done)
            except OSError as error:
                raise self._unreadable(error) from error
            if not got:
                raise self._truncated()
            done += got

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _truncated(self) -> ModelFormatError:
        return ModelFormatError(
            f"{self._path} is truncated: it ends within {self._name}; fetch it again"
        )

    def _unreadable(self, error: OSError) -> ModelFormatError:
        return ModelFormatError(
            f"{self._path} cannot be read ({error.strerror}): make it readable, and load it again"
        )
