"""Weight matrices in the formats that models come in, packed for the kernels.

Formats carry the names of GGUF's tensor types. A packed matrix holds the very numbers of the
file: `dequantise` gives float32 values bit-identical to those of the `gguf` package. Without
the compiled kernels the weights are held in float, and torch multiplies.
"""

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.cpu.library import library, pointer
from draftsmith.kernels.file_rows import FileRows
from draftsmith.kernels.quantise import blocks_from_float, floats_from_blocks

__all__ = ["FORMATS", "BlockFormat", "FoundRows", "Matrix", "MatrixStruct", "num_bytes"]


class BlockFormat(NamedTuple):
    """Weights that share scales lie in blocks."""

    num_weights: int
    num_bytes: int


FORMATS: dict[str, BlockFormat] = {
    "F32": BlockFormat(1, 4),
    "F16": BlockFormat(1, 2),
    "BF16": BlockFormat(1, 2),
    "Q8_0": BlockFormat(32, 34),
    "Q4_0": BlockFormat(32, 18),
    "Q4_1": BlockFormat(32, 20),
    "Q5_0": BlockFormat(32, 22),
    "Q5_1": BlockFormat(32, 24),
    "Q4_K": BlockFormat(256, 144),
    "Q5_K": BlockFormat(256, 176),
    "Q6_K": BlockFormat(256, 210),
}
"""In the order of the sources' DsFormat."""

_CODES = {name: code for code, name in enumerate(FORMATS)}
_FLOAT_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ALIGNMENT = 64
_TILES, _FILE_ROWS = 0, 1  # DsLayout
_TILE = 16
_PART_BYTES = 4 << 20


class FoundRows(NamedTuple):
    """Where C finds some rows."""

    struct: "MatrixStruct"
    """Of a matrix that holds them, to live as long as this tuple."""
    ids: Sequence[int]
    """Their numbers there."""
    held: object
    """What the struct points at."""


class MatrixStruct(ctypes.Structure):
    """`DsMatrix` of the sources."""

    _fields_ = (
        ("format", ctypes.c_int32),
        ("num_outputs", ctypes.c_int32),
        ("num_inputs", ctypes.c_int32),
        ("layout", ctypes.c_int32),
        ("data", ctypes.c_void_p),
    )


class Matrix:
    """Weights `[outputs, inputs]`, packed; made by `pack` or `from_float`.

    Attributes:
        format: One of `FORMATS`.
        num_outputs: Rows.
        num_inputs: Weights of a row.
        num_bytes: What it takes, in memory or in its file.
    """

    def __init__(
        self, format: str, num_outputs: int, num_inputs: int, data: Tensor | FileRows
    ) -> None:
        self.format = format
        self.num_outputs = num_outputs
        self.num_inputs = num_inputs
        in_memory = isinstance(data, Tensor)
        self.num_bytes = data.numel() * data.element_size() if in_memory else data.num_bytes
        self._data = data
        """Bytes for the kernels; without them float weights `[outputs, inputs]`."""

    @classmethod
    def pack(
        cls, raw: np.ndarray, format: str, num_outputs: int, num_inputs: int, name: str = "a tensor"
    ) -> "Matrix":
        """Pack rows of GGUF blocks.

        Args:
            raw: The file's bytes, uint8, contiguous.
            format: One of `FORMATS`.
            num_outputs: Rows.
            num_inputs: Weights of a row; a multiple of the format's block.
            name: For messages.

        Raises:
            ModelFormatError: Unknown format, wrong size, or a block whose scale is not finite.
        """
        return cls.pack_parts([raw], format, num_outputs, num_inputs, name)

    @classmethod
    def pack_parts(
        cls,
        parts: Iterable[np.ndarray],
        format: str,
        num_outputs: int,
        num_inputs: int,
        name: str = "a tensor",
    ) -> "Matrix":
        """The same, from parts of the file that each hold whole tiles of 16 rows.

        Raises:
            ModelFormatError: As `pack`.
        """
        _check_blocks(format, num_inputs, name)
        loaded = library()
        if loaded is None:
            raw = np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])
            _check_size(raw.nbytes, format, num_outputs, num_inputs, name)
            weights = floats_from_blocks(raw, format, num_outputs, num_inputs)
            _check_finite(weights, name)
            # Float formats keep their size; rounding back is exact.
            weights = weights.to(_FLOAT_TYPES.get(format, torch.float32))
            return cls(format, num_outputs, num_inputs, weights)
        data = _aligned(loaded.ds_packed_bytes(_CODES[format], num_outputs, num_inputs))
        row_bytes = _num_bytes(format, 1, num_inputs)
        num_rows = 0
        for part in parts:
            raw = np.ascontiguousarray(part).reshape(-1)
            rows = raw.nbytes // row_bytes
            # Before anything is written.
            if rows * row_bytes != raw.nbytes or num_rows % _TILE or num_rows + rows > num_outputs:
                given = num_rows * row_bytes + raw.nbytes
                raise _wrong_size(given, format, num_outputs, num_inputs, name)
            start = loaded.ds_packed_bytes(_CODES[format], num_rows, num_inputs)
            place = pointer(data) + start
            bad = loaded.ds_pack(_CODES[format], raw.ctypes.data, rows, num_inputs, place)
            if bad >= 0:
                raise _corrupt(
                    name, format, bad + num_rows * row_bytes // FORMATS[format].num_bytes
                )
            num_rows += rows
        _check_size(num_rows * row_bytes, format, num_outputs, num_inputs, name)
        return cls(format, num_outputs, num_inputs, data)

    @classmethod
    def in_file(
        cls,
        path: Path,
        offset: int,
        format: str,
        num_outputs: int,
        num_inputs: int,
        name: str = "a tensor",
    ) -> "Matrix":
        """Leave rows in their file, for matrices of which single rows are read (embeddings).

        They take no memory. Such a matrix cannot `multiply`.

        Raises:
            ModelFormatError: As `pack`.
        """
        _check_blocks(format, num_inputs, name)
        rows = FileRows(path, offset, num_outputs, _num_bytes(format, 1, num_inputs), name)
        block = FORMATS[format]
        step = _PART_BYTES // block.num_bytes * block.num_bytes
        loaded = library()
        if loaded is None:
            return cls.pack_parts(rows.parts(rows.num_bytes), format, num_outputs, num_inputs, name)
        for number, part in enumerate(rows.parts(step) if block.num_weights > 1 else ()):
            blocks = part.nbytes // block.num_bytes
            bad = loaded.ds_find_corrupt(_CODES[format], part.ctypes.data, blocks)
            if bad >= 0:
                raise _corrupt(name, format, bad + number * step // block.num_bytes)
        return cls(format, num_outputs, num_inputs, rows)

    @classmethod
    def from_float(
        cls, weight: Float[Tensor, "outputs inputs"], format: str, name: str = "a tensor"
    ) -> "Matrix":
        """Pack float weights as F32, F16 or BF16, or quantise them (`QUANTISABLE`).

        Raises:
            ModelFormatError: Another format, rows that do not divide into blocks, or NaN.
        """
        if format in _FLOAT_TYPES:
            raw = weight.to(_FLOAT_TYPES[format]).contiguous().view(torch.uint8).numpy()
        else:
            _check_finite(weight, name)
            _check_blocks(format, weight.shape[1], name)
            raw = blocks_from_float(weight.float().contiguous().numpy(), format)
        return cls.pack(raw, format, weight.shape[0], weight.shape[1], name)

    def dequantise(self) -> Float[Tensor, "outputs inputs"]:
        """Every weight in float32."""
        return self.rows(range(self.num_outputs))

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "ids inputs"]:
        """Some rows in float32: the embeddings of tokens.

        Raises:
            InvalidRequestError: There is no such row.
            ModelFormatError: The rows are in a file, which has changed.
        """
        self.check_ids(ids)
        loaded = library()
        if loaded is None:
            return self._tensor[torch.tensor(ids, dtype=torch.long)].float()
        struct, numbers, _held = self.find(ids)
        wanted, out = (
            torch.tensor(numbers, dtype=torch.long),
            torch.empty(len(ids), self.num_inputs),
        )
        loaded.ds_dequantise_rows(ctypes.addressof(struct), pointer(wanted), len(ids), pointer(out))
        return out

    def check_ids(self, ids: Sequence[int]) -> None:
        """Refuse rows that there are not: C would read what lies beside the matrix.

        Raises:
            InvalidRequestError: The first of them is named.
        """
        if ids and not (min(ids) >= 0 and max(ids) < self.num_outputs):
            wrong = next(number for number in ids if not 0 <= number < self.num_outputs)
            raise InvalidRequestError(
                f"row {wrong} is asked of a matrix with {self.num_outputs}: "
                f"give ids between 0 and {self.num_outputs - 1}"
            )

    def find(self, ids: Sequence[int]) -> FoundRows:
        """Where C finds rows that there are: in the matrix, or read from its file.

        Raises:
            ModelFormatError: The file has changed.
        """
        if isinstance(self._data, Tensor):
            return FoundRows(self.struct(), ids, self)
        raw = self._data.read(ids)
        struct = self._struct(_FILE_ROWS, raw.ctypes.data)
        return FoundRows(struct, range(len(ids)), raw)

    def multiply(
        self, inputs: Float[Tensor, "rows inputs"], *, exact_activations: bool = False
    ) -> Float[Tensor, "rows outputs"]:
        """`inputs @ weights.T` in float32, each output summed in one order whatever the rows.

        Quantised formats round the inputs to 8 bits in groups of 16, unless `exact_activations`.
        """
        loaded = library()
        if loaded is None:
            return inputs @ self._tensor.float().T
        inputs = inputs.float().contiguous()
        out = torch.empty(len(inputs), self.num_outputs)
        struct = self._struct(_TILES, pointer(self._tensor))
        loaded.ds_multiply(
            ctypes.addressof(struct), pointer(inputs), len(inputs), pointer(out), exact_activations
        )
        return out

    def struct(self) -> MatrixStruct:
        """For C; the matrix must outlive it. Rows in a file are nowhere until `find` reads them."""
        if isinstance(self._data, FileRows):
            return self._struct(_FILE_ROWS, None)
        return self._struct(_TILES, pointer(self._data))

    def _struct(self, layout: int, data: int | None) -> MatrixStruct:
        return MatrixStruct(_CODES[self.format], self.num_outputs, self.num_inputs, layout, data)

    @property
    def is_in_file(self) -> bool:
        """Whether its rows are read from a file when they are wanted."""
        return isinstance(self._data, FileRows)

    @property
    def _tensor(self) -> Tensor:
        assert isinstance(self._data, Tensor), "rows in a file cannot be multiplied"
        return self._data


def num_bytes(format: str, num_weights: int) -> int:
    """What so many weights take in one of `FORMATS`, whole blocks."""
    block = FORMATS[format]
    return -(-num_weights // block.num_weights) * block.num_bytes


def _num_bytes(format: str, num_outputs: int, num_inputs: int) -> int:
    block = FORMATS[format]
    return num_outputs * (num_inputs // block.num_weights) * block.num_bytes


def _check_size(num_bytes: int, format: str, num_outputs: int, num_inputs: int, name: str) -> None:
    if num_bytes != _num_bytes(format, num_outputs, num_inputs):
        raise _wrong_size(num_bytes, format, num_outputs, num_inputs, name)


def _wrong_size(
    num_bytes: int, format: str, num_outputs: int, num_inputs: int, name: str
) -> ModelFormatError:
    expected = _num_bytes(format, num_outputs, num_inputs)
    return ModelFormatError(
        f"{name} has {num_bytes} bytes where [{num_outputs}, {num_inputs}] in {format} "
        f"takes {expected}: fetch the file again"
    )


def _check_blocks(format: str, num_inputs: int, name: str) -> None:
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise ModelFormatError(f"{name} has format {format}: supported are {known}")
    size = FORMATS[format].num_weights
    if num_inputs % size:
        raise ModelFormatError(
            f"{name} has rows of {num_inputs} weights, not a multiple of {format}'s {size}"
        )


def _corrupt(name: str, format: str, block: int) -> ModelFormatError:
    return ModelFormatError(
        f"{name} is corrupt: block {block} ({format}) has a scale that is not finite; "
        "fetch the file again"
    )


def _check_finite(weights: Tensor, name: str) -> None:
    if not bool(weights.isfinite().all()):
        raise ModelFormatError(f"{name} is corrupt: a weight is not finite; fetch the file again")


def _aligned(num_bytes: int) -> Tensor:
    """Uninitialised memory that starts on a cache line."""
    room = torch.empty(num_bytes + _ALIGNMENT, dtype=torch.uint8)
    start = -room.data_ptr() % _ALIGNMENT
    return room[start : start + num_bytes]
