"""One tensor of a model, still in its file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.kernels.matrix import BlockFormat

__all__ = ["FLOAT_TYPES", "ID_TYPES", "StoredTensor"]

FLOAT_TYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The float formats, by the names of safetensors and of GGUF."""

ID_TYPES: Final = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "BOOL": torch.bool,
}
"""The formats of whole numbers, by safetensors' names: tables of ids, and weights beside their
scales."""

_TILE_ROWS = 16
_PART_BYTES = 4 << 20  # of larger ones the C library keeps some 30 MB when they are freed


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, in a safetensors or a GGUF file."""

    name: str
    format: str
    """A GGUF tensor type, or one of safetensors' float types, which bear the same names."""
    shape: tuple[int, ...]
    """Rows first, as in PyTorch."""
    path: Path
    """The file that holds it."""
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int
    """What it takes once it is read."""
    permuted_heads: int = 0
    """Heads whose rows llama.cpp has put in another order; 0 is none."""
    stride: int = 0
    """Bytes from the start of a row to that of the next; 0 where there is nothing between them."""
    spare_rows: int = 0
    """Rows at the end that are not in the file, but zeros."""
    margins: tuple[int, int] = (0, 0)
    """Columns on the left and on the right that only share blocks with those that are wanted."""

    def interleaved(self, heads: int) -> "StoredTensor":
        """The same, said to have its rows in llama.cpp's order."""
        return replace(self, permuted_heads=heads)

    @property
    def wanted_shape(self) -> tuple[int, ...]:
        """The shape without the margins."""
        return (*self.shape[:-1], self.shape[-1] - sum(self.margins)) if self.shape else ()

    def some_rows(self, name: str, first: int, count: int) -> "StoredTensor":
        """Neighbouring rows of a matrix, as a tensor of their own; beyond the last are zeros.

        Rows are whole blocks; those in llama.cpp's order are taken in whole heads.
        """
        row_bytes = self.num_bytes // self.shape[0]
        return replace(
            self,
            name=name,
            shape=(count, *self.shape[1:]),
            offset=self.offset + first * (self.stride or row_bytes),
            num_bytes=count * row_bytes,
            permuted_heads=self.permuted_heads * count // self.shape[0],
            spare_rows=min(count, max(0, first + count - self.shape[0])),
        )

    def some_columns(self, first: int, count: int, block: BlockFormat) -> "StoredTensor":
        """Neighbouring columns of a matrix: the blocks that hold them, and no others.

        Args:
            first: The first column.
            count: Columns.
            block: Of the tensor's format.
        """
        start = first // block.num_weights
        end = -(-(first + count) // block.num_weights)
        row_bytes, stride = (end - start) * block.num_bytes, self.num_bytes // self.shape[0]
        return replace(
            self,
            shape=(self.shape[0], (end - start) * block.num_weights),
            offset=self.offset + start * block.num_bytes,
            num_bytes=self.shape[0] * row_bytes,
            stride=0 if row_bytes == stride else stride,
            margins=(first - start * block.num_weights, end * block.num_weights - first - count),
        )

    def read(self) -> NDArray[np.uint8]:
        """Read the tensor's bytes into a buffer of their own; no page of the file stays mapped.

        Raises:
            ModelFormatError: The file ends early: it has changed since it was opened.
        """
        raw = self._span(0, self.num_bytes)
        heads = self.permuted_heads
        return _unpermuted(raw, self.shape[0], heads) if heads else raw

    def parts(self) -> Iterator[NDArray[np.uint8]]:
        """Read a matrix in parts of whole tiles of rows, so that little of it is held twice.

        Raises:
            ModelFormatError: As `read`.
        """
        if self.permuted_heads:
            yield self.read()
            return
        tile = _TILE_ROWS * (self.num_bytes // self.shape[0])
        step = max(1, _PART_BYTES // tile) * tile
        for start in range(0, self.num_bytes, step):
            yield self._span(start, min(step, self.num_bytes - start))

    def tensor(self) -> Float[Tensor, "..."]:
        """Read a tensor of floats as float32.

        Raises:
            ModelFormatError: As `read`, or if it is quantised.
        """
        if self.format not in FLOAT_TYPES:
            known = ", ".join(FLOAT_TYPES)
            raise ModelFormatError(f"tensor {self.name!r} is {self.format}; it must be {known}")
        if not self.num_bytes:
            return torch.empty(self.shape)
        stored = torch.from_numpy(self.read()).view(FLOAT_TYPES[self.format])
        return stored.reshape(self.shape).float()

    def ids(self) -> Shaped[Tensor, "..."]:
        """Read whole numbers, or marks, as they are.

        Raises:
            ModelFormatError: As `read`, or if it is none.
        """
        if self.format not in ID_TYPES:
            known = ", ".join(ID_TYPES)
            raise ModelFormatError(f"tensor {self.name!r} is {self.format}; it must be {known}")
        return torch.from_numpy(self.read()).view(ID_TYPES[self.format]).reshape(self.shape)

    def _span(self, start: int, count: int) -> NDArray[np.uint8]:
        """Some of the bytes; whole rows of them, where there is something between rows."""
        buffer = np.empty(count, dtype=np.uint8)
        done = 0
        with self.path.open("rb", buffering=0) as file:
            for offset, num_bytes in self._runs(start, count):
                self._fill(file.fileno(), buffer.data[done : done + num_bytes], offset)
                done += num_bytes
        buffer[done:] = 0
        return buffer

    def _runs(self, start: int, count: int) -> Iterator[tuple[int, int]]:
        """Where in the file these bytes lie, and how many lie together; none are spare rows'."""
        spare_bytes = self.spare_rows * self.num_bytes // self.shape[0] if self.spare_rows else 0
        end = min(start + count, self.num_bytes - spare_bytes)
        if not self.stride:
            yield self.offset + start, max(0, end - start)
            return
        row_bytes = self.num_bytes // self.shape[0]
        for row in range(start // row_bytes, end // row_bytes):
            yield self.offset + row * self.stride, row_bytes

    def _fill(self, descriptor: int, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):  # one call reads 2 GiB at most
            got = os.preadv(descriptor, [view[done:]], offset + done)
            if not got:
                raise ModelFormatError(
                    f"{self.path} is truncated: it ends within tensor {self.name!r}; fetch it again"
                )
            done += got


def _unpermuted(raw: NDArray[np.uint8], num_rows: int, heads: int) -> NDArray[np.uint8]:
    """Undo llama.cpp's order of the rotary pairs: neighbours there, halves apart here.

    A row is a run of whole blocks, so that any format's rows can be moved.
    """
    pairs = raw.reshape(heads, num_rows // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1)
