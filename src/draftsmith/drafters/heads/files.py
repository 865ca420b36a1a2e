"""A head's tensors as their files have them: safetensors, or torch's own, without running code."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from draftsmith.drafters.heads.whole_numbers import unrounded
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.checkpoint import open_checkpoint, open_safetensors
from draftsmith.models.native.stored import ID_TYPES

__all__ = ["PICKLE", "read_config", "read_tensors"]

PICKLE = "pytorch_model.bin"


def read_config(folder: Path) -> dict[str, object]:
    """The keys of a head's config.json.

    Raises:
        ModelFormatError: It is missing, cut off, or no JSON object.
    """
    try:
        value: object = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"config.json cannot be read ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise ModelFormatError("config.json is no JSON object; fetch it again")
    return value


def read_tensors(folder: Path, names: Sequence[str] = ()) -> dict[str, Tensor]:
    """Every tensor of a head's folder: weights in float32, tables of ids as they are.

    Args:
        folder: With `model.safetensors` (or its shards), or `pytorch_model.bin`, which is read as
            tensors only: nothing in it is run.
        names: Files of the kind's own, of which the first that is there is read instead.

    Raises:
        ModelFormatError: A file is missing, cut off, or holds something else.
    """
    own = next((folder / name for name in names if (folder / name).is_file()), None)
    path = own or folder / PICKLE
    is_pickle = path.is_file() and path.suffix != ".safetensors"
    if is_pickle and (own is not None or not any(folder.glob("model.safetensors*"))):
        return _from_pickle(path)
    opened = open_checkpoint(folder, with_ids=True) if own is None else open_safetensors(own)
    stored = {
        name: tensor.ids() if tensor.format in ID_TYPES else tensor.tensor()
        for name, tensor in opened.items()
    }
    return unrounded(stored)


def _from_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFormatError(
            f"{path} cannot be read ({why:.120}); fetch it again, or save it as safetensors"
        ) from error
    if not isinstance(found, Mapping):
        raise ModelFormatError(f"{path} holds {type(found).__name__}, no tensors: fetch it again")
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise ModelFormatError(f"{path} holds {name!r} that is no tensor: fetch it again")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ModelFormatError(
                f"{path} holds {name!r} of {list(value.shape)} and fewer numbers: fetch it again"
            )
        tensors[str(name)] = value.float() if value.is_floating_point() else value
    return tensors
