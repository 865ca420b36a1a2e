"""Damage: flipped bytes, cut files, and counts, sizes and values that are other than they were."""

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["mutate_folder", "mutate_gguf"]

_COUNTS = (0, 1, 2, 3, 5, 255, 4097, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 7, 100, 4096, 10_001, 2**31, 2**63, 2**64, 10**30),
    *(0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"), True, False, None),
    *("", "x", "llama", [], {}, [1, 2], [0], {"a": 1}, [[]], "9" * 200),
)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of GGUF's value types."""


class _Field(NamedTuple):
    """One number of a header."""

    offset: int
    num_bytes: int
    is_size: bool = False
    """Whether it is a value under the architecture's prefix: layers, widths, heads, scales."""


def mutate_gguf(data: bytes, random_: random.Random) -> tuple[str, bytes]:
    """One damaged copy of a whole GGUF file, and what was done to it."""
    fields = list(_fields(data))
    end = fields[-1].offset + 8
    how = random_.choice(("header bytes", "any bytes", "cut", "counts", "sizes", "sizes"))
    match how:
        case "header bytes":
            return how, _flipped(data, random_, end)
        case "any bytes":
            return how, _flipped(data, random_, len(data))
        case "cut":
            return how, data[: random_.randrange(random_.choice((end, len(data))))]
        case _:
            changed = bytearray(data)
            if how == "sizes":
                fields = [one for one in fields if one.is_size]
            for _ in range(random_.choice((1, 1, 1, 2, 4))):
                at, size, _ = random_.choice(fields)
                value = random_.choice(_COUNTS) % 2 ** (8 * size)
                if size == 4 and random_.random() < 0.2:
                    value = struct.unpack("<I", struct.pack("<f", random_.choice(_FLOATS)))[0]
                changed[at : at + size] = value.to_bytes(size, "little")
            return how, bytes(changed)


_FLOATS = (0.0, -1.0, 1.0, 1e-38, 1e38, float("inf"), float("nan"))


def mutate_folder(folder: Path, random_: random.Random) -> str:
    """Damage one file of a checkpoint in its place; says which and how."""
    path = random_.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    if path.suffix == ".safetensors":
        how, data = _mutate_safetensors(path.read_bytes(), random_)
    elif path.suffix == ".json" and random_.random() < 0.8:
        how, data = "values", _mutate_json(path.read_bytes(), random_)
    elif random_.random() < 0.1:
        path.unlink()
        return f"{path.name}: gone"
    else:
        data = path.read_bytes()
        is_cut = random_.random() < 0.3
        how = "cut" if is_cut else "bytes"
        data = (
            data[: random_.randrange(len(data))] if is_cut else _flipped(data, random_, len(data))
        )
    path.write_bytes(data)
    return f"{path.name}: {how}"


# --- GGUF -------------------------------------------------------------------------------------


def _fields(data: bytes) -> Iterator[_Field]:
    """Every number of a sound header: counts, lengths, types, values, shapes, offsets."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    num_tensors, num_pairs = number(8, 8), number(16, 8)
    yield from (_Field(4, 4), _Field(8, 8), _Field(16, 8))
    at = 24
    for _ in range(num_pairs):
        yield _Field(at, 8)
        key = data[at + 8 : at + 8 + number(at, 8)]
        is_size = not key.startswith((b"general.", b"tokenizer."))
        at += 8 + number(at, 8)
        yield _Field(at, 4)
        kind, at = number(at, 4), at + 4
        if kind == 9:
            yield from (_Field(at, 4), _Field(at + 4, 8))
            kind, count, at = number(at, 4), number(at + 4, 8), at + 12
        else:
            count = 1
        for place in range(count):
            if place < 3:  # a vocabulary would drown the rest
                yield _Field(at, 8 if kind == 8 else _SIZES[kind], is_size)
            at += 8 + number(at, 8) if kind == 8 else _SIZES[kind]
    for _ in range(num_tensors):
        yield _Field(at, 8)
        at += 8 + number(at, 8)
        yield _Field(at, 4)
        num_dimensions, at = number(at, 4), at + 4
        for _ in range(num_dimensions):
            yield _Field(at, 8)
            at += 8
        yield from (_Field(at, 4), _Field(at + 4, 8))
        at += 12


# --- folders ----------------------------------------------------------------------------------


def _mutate_safetensors(data: bytes, random_: random.Random) -> tuple[str, bytes]:
    length = int.from_bytes(data[:8], "little")
    how = random_.choice(("header bytes", "any bytes", "cut", "length", "entries", "entries"))
    match how:
        case "header bytes":
            return how, _flipped(data, random_, 8 + length)
        case "any bytes":
            return how, _flipped(data, random_, len(data))
        case "cut":
            return how, data[: random_.randrange(random_.choice((8 + length, len(data))))]
        case "length":
            return how, struct.pack("<Q", random_.choice(_COUNTS)) + data[8:]
        case _:
            header = _mutate_json(data[8 : 8 + length], random_)
            return how, struct.pack("<Q", len(header)) + header + data[8 + length :]


def _mutate_json(text: bytes, random_: random.Random) -> bytes:
    """Another value, or none, at one place or a few of a document."""
    document: Any = json.loads(text)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = random_.choice(places)
        if random_.random() < 0.15:
            del holder[key]
        else:
            holder[key] = random_.choice(_VALUES)
    return json.dumps(document).encode()


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every key and index of a document; of long ones, the first few of each level."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys[:80]:
        yield value, key
        if isinstance(value[key], dict | list) and depth < 4:
            yield from _places(value[key], depth + 1)


def _flipped(data: bytes, random_: random.Random, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        changed[random_.randrange(end)] = random_.choice((0, 1, 0xFF, random_.randrange(256)))
    return bytes(changed)
