"""Tensors as a file of safetensors, and a model's folder around it, whole or not there."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.models.written import written_whole

__all__ = ["save_folder", "save_tensors"]

_FORMATS = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.bool: "BOOL",
}


def save_folder(
    folder: Path,
    config: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a model's folder; each file is whole or not there, the config last.

    Args:
        folder: Made where it is missing.
        config: What `config.json` holds.
        tensors: By name.
        texts: Further files, by name, or by place in a folder within.

    Raises:
        InvalidRequestError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / "model.safetensors", tensors)
        for name, text in {**texts, "config.json": json.dumps(config, indent=2) + "\n"}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with written_whole(folder / name) as place:
                place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(
            f"{folder} cannot be written to ({error.strerror}): give another folder, or make room"
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: The place.
        tensors: By name.

    Raises:
        OSError: As writing does.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.nbytes
        header[name] = {
            "dtype": _FORMATS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with written_whole(path) as place, place.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
