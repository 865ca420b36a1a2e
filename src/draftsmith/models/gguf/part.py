"""One GGUF file's header, read without a weight: metadata, and where the tensors lie.

The `gguf` package's own reader builds an array per vocabulary entry: measured, 5.5 s for a
vocabulary of 152k tokens. This one steps over them, so that every load can afford the check.
"""

import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from draftsmith.errors import ModelFormatError, ModelNotFoundError

__all__ = ["GgufArray", "GgufPart", "GgufTensor", "GgufValue", "malformed", "read_part"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
# An empty name or key with its type, and a tensor's offset or a value of one byte.
_LEAST_TENSOR_BYTES, _LEAST_PAIR_BYTES = 24, 13
# The value types of the GGUF specification that have a fixed size.
_SCALARS: Final = {
    number: struct.Struct(f"<{code}")
    for number, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"
    }.items()
}  # fmt: skip

# Longer arrays belong to the vocabulary: they are stepped over.
_MOST_ARRAY_VALUES = 1024

GgufValue = bool | int | float | str | tuple[bool | int | float, ...]
"""One value of a file's metadata."""


class GgufArray(NamedTuple):
    """Where the values of an array lie."""

    value_type: int
    """A GGUF value type: 8 is a string (8 bytes of length, then UTF-8), 6 a float32, 5 an int32."""
    num_values: int
    offset: int
    """Bytes from the start of the file to the first value."""
    num_bytes: int


class GgufTensor(NamedTuple):
    """One tensor's entry in the header; `num_bytes` follows from its type and shape."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    """As the file gives it: the fastest dimension first."""
    num_bytes: int
    offset: int
    """Bytes from the start of its file."""
    path: Path
    """The file: one part of a model that is split."""

    @property
    def num_parameters(self) -> int:
        """Weights in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufPart:
    """One file."""

    path: Path
    values: dict[str, GgufValue]
    """The metadata; arrays of strings, and of more than 1024 numbers, are left out."""
    arrays: dict[str, GgufArray]
    """Every array of the metadata."""
    tensors: list[GgufTensor]
    num_bytes: int
    """The size of the file."""

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; None if there is none of that name."""
        value = self.values.get(key)
        return value if isinstance(value, int) else None


def read_part(path: Path) -> GgufPart:
    """Read and check a file's header; every tensor must lie within the file.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: Not a GGUF file, of another version, truncated, or malformed; the
            message names the file and the remedy.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            _check_magic(path, file.read(len(_MAGIC)))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                part = _read_header(_Cursor(path, data, num_bytes), num_bytes)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no file {path}; check the path to the .gguf file") from error
    except OSError as error:
        raise ModelFormatError(
            f"{path} cannot be read ({error.strerror}); give a readable .gguf file"
        ) from error
    end = max((tensor.offset + tensor.num_bytes for tensor in part.tensors), default=0)
    if end > num_bytes:
        raise _truncated(path, f"has {num_bytes} of {end} bytes")
    return part


def malformed(path: Path, detail: str) -> ModelFormatError:
    """The error for a file that breaks the format's rules."""
    return ModelFormatError(f"{path} is a malformed GGUF file: {detail}; fetch it again")


class _Cursor:
    """Reads a GGUF header front to back; every step is checked against the file's end."""

    def __init__(self, path: Path, data: mmap.mmap, num_bytes: int) -> None:
        self.path = path
        self.position = 0
        self._data = data
        self._num_bytes = num_bytes

    def advance(self, num_bytes: int) -> int:
        """Step over `num_bytes`, and return where they begin."""
        start = self.position
        if num_bytes > self._num_bytes - start:
            raise _truncated(self.path)
        self.position = start + num_bytes
        return start

    def number(self, layout: struct.Struct) -> bool | int | float:
        return layout.unpack_from(self._data, self.advance(layout.size))[0]

    def integer(self, layout: struct.Struct) -> int:
        return int(self.number(layout))

    def string(self) -> str:
        num_bytes = self.integer(_U64)
        start = self.advance(num_bytes)
        try:
            return self._data[start : start + num_bytes].decode("utf-8")
        except UnicodeDecodeError as error:
            raise malformed(self.path, "a string is not UTF-8") from error

    def skip_strings(self, count: int) -> None:
        """Step over strings; a loop with nothing else in it, for there are 300,000 of them."""
        data, unpack = self._data, _U64.unpack_from
        position, last = self.position, self._num_bytes - _U64.size
        while count and position <= last:
            position += _U64.size + unpack(data, position)[0]
            count -= 1
        if count:
            raise _truncated(self.path)
        self.advance(position - self.position)


def _read_header(cursor: _Cursor, num_bytes: int) -> GgufPart:
    """Read the whole header: counts, metadata, tensor entries."""
    cursor.advance(len(_MAGIC))
    _check_version(cursor.path, cursor.integer(_U32))
    num_tensors, num_pairs = cursor.integer(_U64), cursor.integer(_U64)
    # Before anything is counted: what is claimed must fit in the file.
    if num_tensors * _LEAST_TENSOR_BYTES + num_pairs * _LEAST_PAIR_BYTES > num_bytes:
        raise _truncated(cursor.path)
    values: dict[str, GgufValue] = {}
    arrays: dict[str, GgufArray] = {}
    for _ in range(num_pairs):
        _read_pair(cursor, values, arrays)
    block_sizes = _block_sizes()
    found = [_read_tensor(cursor, block_sizes) for _ in range(num_tensors)]
    alignment = _alignment(cursor.path, values)
    start = -(-cursor.position // alignment) * alignment
    names = Counter(one.name for one in found)
    for name, count in names.items():
        if count > 1:
            raise malformed(cursor.path, f"tensor {name!r} is there twice")
    tensors = [one._replace(offset=start + one.offset) for one in found]
    return GgufPart(cursor.path, values, arrays, tensors, num_bytes)


def _read_pair(cursor: _Cursor, values: dict[str, GgufValue], arrays: dict[str, GgufArray]) -> None:
    """Read one metadata pair; of a long array, keep only its place."""
    key, kind = cursor.string(), cursor.integer(_U32)
    if key in values or key in arrays:
        raise malformed(cursor.path, f"key {key!r} is there twice")
    if kind == _STRING:
        values[key] = cursor.string()
    elif kind == _ARRAY:
        arrays[key], numbers = _read_array(cursor, key)
        if numbers:
            values[key] = numbers
    elif kind in _SCALARS:
        values[key] = cursor.number(_SCALARS[kind])
    else:
        raise malformed(cursor.path, f"{key!r} has unknown value type {kind}")


def _read_array(cursor: _Cursor, key: str) -> tuple[GgufArray, tuple[bool | int | float, ...]]:
    """Return the place of an array, and its values if they are few and numbers."""
    kind, count = cursor.integer(_U32), cursor.integer(_U64)
    start, numbers = cursor.position, ()
    if kind == _STRING:
        cursor.skip_strings(count)
    elif kind in _SCALARS and count <= _MOST_ARRAY_VALUES:
        numbers = tuple(cursor.number(_SCALARS[kind]) for _ in range(count))
    elif kind in _SCALARS:
        cursor.advance(count * _SCALARS[kind].size)
    else:
        raise malformed(cursor.path, f"array {key!r} has unknown value type {kind}")
    return GgufArray(kind, count, start, cursor.position - start), numbers


def _read_tensor(cursor: _Cursor, block_sizes: dict[int, tuple[str, int, int]]) -> GgufTensor:
    """Read one tensor's entry; its size in bytes comes from the blocks of its type."""
    name, num_dimensions = cursor.string(), cursor.integer(_U32)
    if num_dimensions > _MAX_DIMENSIONS:
        raise malformed(cursor.path, f"tensor {name!r} has {num_dimensions} dimensions")
    shape = [cursor.integer(_U64) for _ in range(num_dimensions)]
    kind, offset = cursor.integer(_U32), cursor.integer(_U64)
    if kind not in block_sizes:
        raise ModelFormatError(
            f"{cursor.path} has tensor {name!r} of unknown type {kind}; upgrade the gguf package"
        )
    type_name, weights_per_block, bytes_per_block = block_sizes[kind]
    num_parameters = math.prod(shape)
    if shape and shape[0] % weights_per_block:
        raise malformed(cursor.path, f"tensor {name!r} has rows that are no whole blocks")
    num_bytes = num_parameters // weights_per_block * bytes_per_block
    return GgufTensor(name, type_name, tuple(shape), num_bytes, offset, cursor.path)


def _block_sizes() -> dict[int, tuple[str, int, int]]:
    """Return name, weights per block and bytes per block of every tensor type."""
    from gguf.constants import GGML_QUANT_SIZES  # here, because it takes 0.1 s

    return {kind.value: (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _alignment(path: Path, values: dict[str, GgufValue]) -> int:
    """Return the multiple of bytes at which the weights begin."""
    alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise malformed(path, f"general.alignment is {alignment!r}")
    return alignment


def _check_magic(path: Path, magic: bytes) -> None:
    if not magic:
        raise ModelFormatError(f"{path} is empty; fetch it again")
    if magic != _MAGIC:
        raise ModelFormatError(
            f"{path} is not a GGUF file: it begins with {magic!r}, not {_MAGIC!r}; "
            "give a .gguf file, or fetch it again"
        )


def _check_version(path: Path, version: int) -> None:
    if version in _VERSIONS:
        return
    # A small version number whose bytes are swapped: written on, or for, such a machine.
    kind = "big-endian GGUF" if version and version & 0xFFFF == 0 else f"GGUF version {version}"
    raise ModelFormatError(
        f"{path} is {kind}; convert it to little-endian version 3 with llama.cpp's tools"
    )


def _truncated(path: Path, detail: str = "ends within its header") -> ModelFormatError:
    return ModelFormatError(f"{path} is truncated: it {detail}; fetch it again")
