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
    permuted_heads: int = 0
    """Heads whose rows llama.cpp has put in another order; 0 is none."""

    def interleaved(self, heads: int) -> "StoredTensor":
        """The same, said to have its rows in llama.cpp's order."""
        return replace(self, permuted_heads=heads)

    def some_rows(self, name: str, first: int, count: int) -> "StoredTensor":
        """Neighbouring rows of a matrix, as a tensor of their own; rows are whole blocks."""
        row_bytes = self.num_bytes // self.shape[0]
        return replace(
            self,
            name=name,
            shape=(count, *self.shape[1:]),
            offset=self.offset + first * row_bytes,
            num_bytes=count * row_bytes,
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
        buffer = np.empty(count, dtype=np.uint8)
        view, done = buffer.data, 0
        with self.path.open("rb", buffering=0) as file:
            while done < count:  # one call reads 2 GiB at most
                got = os.preadv(file.fileno(), [view[done:]], self.offset + start + done)
                if not got:
                    raise ModelFormatError(
                        f"{self.path} is truncated: it ends within tensor {self.name!r}; "
                        "fetch it again"
                    )
                done += got
        return buffer


def _unpermuted(raw: NDArray[np.uint8], num_rows: int, heads: int) -> NDArray[np.uint8]:
    """Undo llama.cpp's order of the rotary pairs: neighbours there, halves apart here.

    A row is a run of whole blocks, so that any format's rows can be moved.
    """
    pairs = raw.reshape(heads, num_rows // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1)
