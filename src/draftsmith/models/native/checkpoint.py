"""A checkpoint in safetensors files: what it holds, and where, without reading a weight.

Layout of a file: eight bytes of header length (little-endian), a JSON header, the weights with no
gap between them (https://github.com/huggingface/safetensors#format).
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch

from draftsmith.errors import ModelFormatError, ModelNotFoundError
from draftsmith.models.native.stored import FLOAT_TYPES, ID_TYPES, StoredTensor

__all__ = ["open_checkpoint", "open_safetensors"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_LENGTH_BYTES = 8
_Types = dict[str, torch.dtype]
"""What tensors may be, by safetensors' names."""
_MOST_HEADER_BYTES = 100_000_000  # as the format's own library allows


def open_checkpoint(folder: Path, *, with_ids: bool = False) -> dict[str, StoredTensor]:
    """List the tensors of a model's folder: `model.safetensors`, or the shards of its index.

    Args:
        folder: What `save_pretrained` wrote. Headers are read and checked; weights are not.
        with_ids: Whether there may be tables of ids among them, as draft heads have.

    Returns:
        The tensors by name.

    Raises:
        ModelNotFoundError: There is no such folder.
        ModelFormatError: It holds no safetensors, or a file of it is missing, truncated or
            malformed; the message names the file and the remedy.

    Example:
        >>> from pathlib import Path
        >>> open_checkpoint(Path("t5-small"))["shared.weight"].tensor().ndim
        2
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is not a folder; give a model's folder")
    types: _Types = {**FLOAT_TYPES, **(ID_TYPES if with_ids else {})}
    if (folder / _SINGLE).is_file():
        return {tensor.name: tensor for tensor in _read_file(folder / _SINGLE, types)}
    if (folder / _INDEX).is_file():
        return _read_shards(folder, types)
    if any((folder / name).is_file() for name in _PICKLES):
        raise ModelFormatError(
            f"{folder} holds {_PICKLES[0]} only, a pickle that could run code; "
            "save the model again as safetensors"
        )
    raise ModelFormatError(f"{folder} holds no {_SINGLE}; give a model's folder")


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of one file of floats and tables of ids.

    Args:
        path: Of the file, which is there. Its header is read and checked; weights are not.

    Returns:
        The tensors by name.

    Raises:
        ModelFormatError: It is truncated or malformed.
    """
    return {tensor.name: tensor for tensor in _read_file(path, {**FLOAT_TYPES, **ID_TYPES})}


# --- shards -----------------------------------------------------------------------------------


def _read_shards(folder: Path, types: _Types) -> dict[str, StoredTensor]:
    """Every tensor of the index, and none beside it."""
    wanted = _read_index(folder / _INDEX)
    found: dict[str, StoredTensor] = {}
    for shard in sorted(set(wanted.values())):
        path = folder / shard
        if not path.is_file():
            raise ModelFormatError(f"{path} is missing, but {_INDEX} names it; fetch it again")
        for tensor in _read_file(path, types):
            if wanted.get(tensor.name) != shard:
                raise _malformed(path, f"{_INDEX} does not list its tensor {tensor.name!r}")
            found[tensor.name] = tensor
    for name, shard in wanted.items():
        if name not in found:
            raise _malformed(folder / shard, f"tensor {name!r} of {_INDEX} is not in it")
    return found


def _read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor."""
    weight_map = _json_object(path, path.read_bytes()).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _malformed(path, "it has no weight_map")
    shards: dict[str, str] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise _malformed(path, f"the shard of {name!r} is {shard!r}, not a file's name")
        shards[name] = shard
    return shards


# --- one file ---------------------------------------------------------------------------------


def _read_file(path: Path, types: _Types) -> list[StoredTensor]:
    """The tensors of one file, in the order of their bytes."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        length_bytes = file.read(_LENGTH_BYTES)
        length = int.from_bytes(length_bytes, "little")
        _check_header_length(path, length_bytes, length, num_bytes)
        header = _json_object(path, file.read(length))
    start = _LENGTH_BYTES + length
    tensors = [
        _read_entry(path, name, entry, start, types)
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    _check_layout(path, tensors, start, num_bytes)
    return tensors


def _check_header_length(path: Path, length_bytes: bytes, length: int, num_bytes: int) -> None:
    if len(length_bytes) < _LENGTH_BYTES:
        raise _truncated(path, f"has {num_bytes} bytes")
    if length > _MOST_HEADER_BYTES:
        raise _malformed(path, f"its header claims {length} bytes")
    if _LENGTH_BYTES + length > num_bytes:
        raise _truncated(path, "ends within its header")


def _read_entry(path: Path, name: str, entry: object, start: int, types: _Types) -> StoredTensor:
    """One tensor's entry in the header; `start` is where the weights begin."""
    if not isinstance(entry, dict):
        raise _malformed(path, f"tensor {name!r} is {entry!r}")
    format = _read_format(path, name, entry.get("dtype"), types)
    shape = _read_integers(path, name, "shape", entry.get("shape"))
    offsets = _read_integers(path, name, "data_offsets", entry.get("data_offsets"))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _malformed(path, f"tensor {name!r} has data_offsets {list(offsets)}")
    num_bytes = offsets[1] - offsets[0]
    wanted = math.prod(shape) * types[format].itemsize
    if num_bytes != wanted:
        raise _malformed(path, f"tensor {name!r} has {num_bytes} bytes, its shape needs {wanted}")
    return StoredTensor(name, format, shape, path, start + offsets[0], num_bytes)


def _read_format(path: Path, name: str, dtype: object, types: _Types) -> str:
    for format in types:
        if dtype == format:
            return format
    raise ModelFormatError(
        f"{path} has tensor {name!r} of dtype {dtype!r}; save the model as {', '.join(FLOAT_TYPES)}"
    )


def _read_integers(path: Path, name: str, key: str, value: object) -> tuple[int, ...]:
    numbers: list[object] = value if isinstance(value, list) else [value]
    # bool is an int to Python, but no size.
    if any(type(number) is not int or number < 0 for number in numbers):
        raise _malformed(path, f"tensor {name!r} has {key} {value!r}")
    return tuple(number for number in numbers if isinstance(number, int))


def _check_layout(path: Path, tensors: list[StoredTensor], start: int, num_bytes: int) -> None:
    """The weights follow each other with no gap, to the end of the file."""
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            how = "overlaps the one before" if tensor.offset < position else "leaves a gap before"
            raise _malformed(path, f"tensor {tensor.name!r} {how}")
        position += tensor.num_bytes
    if position > num_bytes:
        raise _truncated(path, f"has {num_bytes} of {position} bytes")
    if position < num_bytes:
        raise _malformed(path, f"it has {num_bytes - position} bytes after its last tensor")


# --- both -------------------------------------------------------------------------------------


def _json_object(path: Path, text: bytes) -> dict[str, object]:
    """Parse a JSON object whose names are all different."""
    try:
        value: object = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _malformed(path, "its JSON is not an object")
    return value


def _without_repeats(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"{name!r} occurs twice")
        result[name] = value
    return result


def _truncated(path: Path, detail: str) -> ModelFormatError:
    return ModelFormatError(f"{path} is truncated: it {detail}; fetch it again")


def _malformed(path: Path, detail: str) -> ModelFormatError:
    return ModelFormatError(f"{path} is malformed: {detail}; fetch it again")
