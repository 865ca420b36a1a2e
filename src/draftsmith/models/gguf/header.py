"""All that a model in GGUF says before its weights: one file, or all parts of a split one."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from draftsmith.errors import ModelFormatError, ModelNotFoundError
from draftsmith.models.gguf.part import (
    GgufArray,
    GgufPart,
    GgufTensor,
    GgufValue,
    malformed,
    read_part,
)
from draftsmith.models.native.bounds import named_after

__all__ = [
    "GgufArray",
    "GgufHeader",
    "GgufSummary",
    "GgufTensor",
    "GgufValue",
    "check_gguf",
    "list_tensors",
    "read_header",
]

_NUMBER, _COUNT, _NUM_TENSORS = "split.no", "split.count", "split.tensors.count"
_MOST_PARTS = 9999


class GgufHeader(NamedTuple):
    """A whole model, but for its weights."""

    values: dict[str, GgufValue]
    """The metadata; arrays of strings, and of more than 1024 numbers, are left out."""
    tensors: list[GgufTensor]
    """Of all parts."""
    arrays: dict[str, GgufArray]
    """Every array of the metadata: in the first part, which is the file that was named."""


@dataclass(frozen=True, slots=True)
class GgufSummary:
    """What a GGUF file says about itself.

    Attributes:
        architecture: Such as `llama` or `qwen2`.
        name: The model's name; None if the file gives none.
        num_tensors: At least 1.
        num_parameters: Weights in all tensors.
        context_length: The positions that the model was made for; None if not given.
        vocab_size: Tokens of the model, or of its tokenizer; None if neither is given.
        quantisations: How many tensors have each type, by the type's name (`Q4_K`, `F32`, …).
        num_bytes: The size of the file, or of all parts.
        license: As the file gives it; None if it does not.
    """

    architecture: str
    name: str | None
    num_tensors: int
    num_parameters: int
    context_length: int | None
    vocab_size: int | None
    quantisations: dict[str, int]
    num_bytes: int
    license: str | None


def check_gguf(path: Path) -> GgufSummary:
    """Check that a model is whole and a GGUF that can be read, and say what it holds.

    Args:
        path: The file, or the first part of a split one. Headers are read; weights are not.

    Returns:
        The summary.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: Not a GGUF file, of another version, truncated, or malformed, or a part
            is missing; the message names the file and the remedy.
    """
    with named_after(path):
        return _summarise(_read_parts(path))


def read_header(path: Path) -> GgufHeader:
    """Read the metadata and the tensors' entries of a whole model.

    Args:
        path: As `check_gguf`.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: As `check_gguf`.

    Example:
        >>> from pathlib import Path
        >>> read_header(Path("model.gguf")).values["llama.block_count"]
        2
    """
    with named_after(path):
        parts = _read_parts(path)
    return GgufHeader(parts[0].values, list(_tensors(parts)), parts[0].arrays)


def list_tensors(path: Path) -> list[GgufTensor]:
    """List the tensors of a whole model.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: As `check_gguf`.
    """
    return read_header(path).tensors


# --- parts ------------------------------------------------------------------------------------


def _read_parts(path: Path) -> list[GgufPart]:
    """The file, and the ones that it goes on in; together they must be one whole model."""
    first = read_part(path)
    parts = [first, *(_read_next(first, number) for number in range(1, _num_parts(first)))]
    if not first.values.get("general.architecture"):
        raise malformed(path, "it names no general.architecture")
    names = Counter(tensor.name for tensor in _tensors(parts))
    if not names:
        raise ModelFormatError(f"{path} holds no tensors, only a vocabulary; give a model's file")
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise malformed(path, f"tensor {twice[0]!r} is in two of its parts")
    wanted = first.number(_NUM_TENSORS)
    if wanted is not None and wanted != len(names):
        raise malformed(path, f"its parts hold {len(names)} tensors, not {wanted} ({_NUM_TENSORS})")
    return parts


def _num_parts(first: GgufPart) -> int:
    """How many parts a model has, of which only the first may be named."""
    count, number = first.number(_COUNT) or 1, first.number(_NUMBER) or 0
    if not 1 <= count <= _MOST_PARTS or not 0 <= number < count:
        raise malformed(first.path, f"it is part {number} of {count} ({_NUMBER}, {_COUNT})")
    if count > 1 and not first.path.name.endswith(_ending(number, count)):
        raise ModelFormatError(
            f"{first.path} is part {number + 1} of {count}, so its name must end with "
            f"{_ending(number, count)}; give it back its name, or join the parts with "
            "llama-gguf-split --merge"
        )
    if number:
        raise ModelFormatError(
            f"{first.path} is part {number + 1} of {count}; give the first, "
            f"{_beside(first.path, number, 0, count).name}"
        )
    return count


def _read_next(first: GgufPart, number: int) -> GgufPart:
    count = _num_parts(first)
    path = _beside(first.path, 0, number, count)
    try:
        part = read_part(path)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"no file {path}, which is part {number + 1} of {count}; fetch it, too"
        ) from error
    for key, wanted in ((_NUMBER, number), (_COUNT, count)):
        if part.number(key) != wanted:
            raise malformed(path, f"{key} is {part.number(key)}, not {wanted} as in its name")
    kind = part.values.get("general.architecture")
    if kind is not None and kind != first.values.get("general.architecture"):
        raise malformed(path, f"general.architecture is {kind!r}, unlike in the first part")
    return part


def _ending(number: int, count: int) -> str:
    """Parts are told by their names: llama.cpp's `llama_split_path`."""
    return f"-{number + 1:05d}-of-{count:05d}.gguf"


def _beside(path: Path, number: int, other: int, count: int) -> Path:
    """The name of another part of the same model."""
    return path.with_name(path.name.removesuffix(_ending(number, count)) + _ending(other, count))


def _tensors(parts: list[GgufPart]) -> Iterator[GgufTensor]:
    for part in parts:
        yield from part.tensors


# --- summary ----------------------------------------------------------------------------------


def _summarise(parts: list[GgufPart]) -> GgufSummary:
    """Pick what a user wants to know."""
    first, tensors = parts[0], list(_tensors(parts))
    architecture = str(first.values["general.architecture"])
    return GgufSummary(
        architecture=architecture,
        name=_text(first, "general.name"),
        num_tensors=len(tensors),
        num_parameters=sum(tensor.num_parameters for tensor in tensors),
        context_length=first.number(f"{architecture}.context_length"),
        vocab_size=first.number(f"{architecture}.vocab_size") or _num_tokens(first),
        quantisations=dict(Counter(tensor.type_name for tensor in tensors)),
        num_bytes=sum(part.num_bytes for part in parts),
        license=_text(first, "general.license"),
    )


def _text(part: GgufPart, key: str) -> str | None:
    value = part.values.get(key)
    return value if isinstance(value, str) else None


def _num_tokens(part: GgufPart) -> int | None:
    tokens = part.arrays.get("tokenizer.ggml.tokens")
    return None if tokens is None else tokens.num_values
