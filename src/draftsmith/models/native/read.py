"""From a folder of safetensors, or from any tensors by name, to a decoder's shape and weights.

Tensors are read one by one into buffers of their own, so that no more than the packed weights
and one tensor are held at a time.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.matrix import FORMATS, Matrix, num_bytes
from draftsmith.kernels.stand_ins import converted, held_format
from draftsmith.models.native.bounds import check_sizes, extent_of, named_after
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.config import (
    DecoderConfig,
    decoder_config_from_json,
)
from draftsmith.models.native.memory import available_memory, check_fits
from draftsmith.models.native.names import TRANSFORMERS, Naming, check_names
from draftsmith.models.native.shards import Part, shard_tensors
from draftsmith.models.native.stored import FLOAT_TYPES, StoredTensor
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = [
    "TARGET_FORMATS",
    "RequantisedError",
    "native_architecture",
    "read_folder",
    "read_weights",
]

TARGET_FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_1")
"""The formats that matrices can be converted to."""

_LAYERS = ("num_hidden_layers",)
_SIZES = (
    *("hidden_size", "intermediate_size", "vocab_size", "head_dim"),
    *("num_attention_heads", "num_key_value_heads"),
)
_OLD_BUFFER = "rotary_emb.inv_freq"  # old checkpoints carry what follows from the config


class RequantisedError(InvalidRequestError):
    """Weights that are quantised already would be quantised to another format."""


def read_folder(
    folder: Path, format: str | None = None, part: Part | None = None
) -> tuple[DecoderConfig, DecoderWeights]:
    """Read a model, or one rank's part of it, from a folder that `save_pretrained` wrote.

    Args:
        folder: It holds `config.json` and safetensors.
        format: One of `TARGET_FORMATS`, to convert or quantise every matrix to it, the
            embedding included; None keeps the checkpoint's.
        part: Whose weights are read, as `native.shards` cuts them; None is the whole model.

    Returns:
        The whole model's shape, and the weights; norms and biases are float32.

    Raises:
        ModelNotFoundError: There is no such folder.
        ModelFormatError: It is not whole, is of a kind that has no native decoder, holds other
            tensors than its config means, or does not fit in memory.
        InvalidRequestError: `format` is unknown, or the model cannot be cut into such parts.
    """
    with named_after(folder):
        stored = {
            tensor.name: tensor
            for tensor in open_checkpoint(folder).values()
            if not tensor.name.endswith(_OLD_BUFFER)
        }
        config = _folder_config(folder, stored)
        if config.is_tied and not _is_same(stored, TRANSFORMERS.head, TRANSFORMERS.embedding):
            config = replace(config, is_tied=False)
        elif config.is_tied:
            stored.pop(TRANSFORMERS.head, None)
        return config, read_weights(config, TRANSFORMERS, stored, format, part)


def read_weights(
    config: DecoderConfig,
    naming: Naming,
    stored: Mapping[str, StoredTensor],
    format: str | None,
    part: Part | None = None,
) -> DecoderWeights:
    """Read all weights of a model, or one rank's part of them.

    Args:
        config: The whole model's shape.
        naming: What its tensors are called.
        stored: The tensors by name: those that the shape means, and no others.
        format: One of `TARGET_FORMATS`, to convert every matrix to it; None keeps each one's, or
            what `kernels.stand_ins` holds it as. A part that ends within quantised blocks is held
            as F32, which keeps every value.
        part: Whose weights are read, and what memory is measured for; None is the whole model.

    Raises:
        ModelFormatError: A tensor is missing, unknown, misshapen, corrupt or of a type that cannot
            be read, or there is too little memory.
        InvalidRequestError: `format` is unknown, or would quantise quantised weights again; or the
            model cannot be cut into such parts.
    """
    check_names({name: tensor.shape for name, tensor in stored.items()}, naming.shapes(config))
    _check_target(format, stored)
    if part is not None:
        stored = shard_tensors(stored, naming, config, part)
    check_fits(_needed_bytes(stored, format), available_memory())
    return _Reader(config, naming, stored, format, part).read_all()


def native_architecture(source: Path | Mapping[str, object]) -> str | None:
    """Say whether a checkpoint of `transformers` can run natively.

    Args:
        source: A folder, or a parsed `config.json`.

    Returns:
        Its architecture; None if it needs another implementation, or is malformed.

    Raises:
        ModelNotFoundError: There is no such folder.

    Example:
        >>> native_architecture({"model_type": "mamba"}) is None
        True
    """
    try:
        if not isinstance(source, Path):
            with named_after(Path("config.json")):
                return decoder_config_from_json(source).architecture
        with named_after(source):
            return _folder_config(source, open_checkpoint(source)).architecture
    except ModelFormatError:
        return None


# --- sources ----------------------------------------------------------------------------------


def _folder_config(folder: Path, stored: Mapping[str, StoredTensor]) -> DecoderConfig:
    path, beside = folder / "config.json", folder / "generation_config.json"
    if not path.is_file():
        raise ModelFormatError("it holds no config.json; give a model's folder")
    config = _json(path)
    check_sizes(config, _LAYERS, _SIZES, extent_of(tensor.shape for tensor in stored.values()))
    return decoder_config_from_json(config, _json(beside) if beside.is_file() else None)


def _json(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path.name} is not JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path.name} is no JSON object; fetch it again")
    return value


def _is_same(stored: Mapping[str, StoredTensor], name: str, other: str) -> bool:
    """Whether one tensor, if it is there at all, is a copy of the other."""
    if name not in stored or other not in stored:
        return True
    one, two = stored[name], stored[other]
    is_alike = (one.format, one.shape) == (two.format, two.shape)
    return is_alike and np.array_equal(one.read(), two.read())


# --- weights ----------------------------------------------------------------------------------


class _Reader:
    """Reads the weights of one model, whatever its tensors are called."""

    def __init__(
        self,
        config: DecoderConfig,
        naming: Naming,
        stored: Mapping[str, StoredTensor],
        format: str | None,
        part: Part | None,
    ) -> None:
        self._config, self._naming, self._stored, self._format = config, naming, stored, format
        self._owner = "" if part is None else f"rank {part.rank}'s part of "

    def read_all(self) -> DecoderWeights:
        naming = self._naming
        is_tied = self._config.is_tied
        embedding = self._matrix(naming.embedding, is_looked_up=not is_tied)
        return DecoderWeights(
            embedding=embedding,
            layers=tuple(self._layer(number) for number in range(self._config.num_layers)),
            final_norm=self._vector(naming.final_norm),
            head=embedding if is_tied else self._matrix(naming.head),
        )

    def _layer(self, number: int) -> LayerWeights:
        def norm(field: str) -> Float[Tensor, " width"]:
            return self._vector(self._naming.part(number, field))

        def projection(field: str) -> Projection:
            matrix = self._matrix(self._naming.part(number, field))
            if field not in self._config.biases:
                return Projection(matrix)
            return Projection(matrix, self._vector(self._naming.part(number, field, "bias")))

        def optional(field: str, is_there: bool) -> Float[Tensor, " width"] | None:
            return norm(field) if is_there else None

        has_head_norms = self._config.normalises_heads
        has_output_norms = self._config.normalises_outputs
        return LayerWeights(
            attention_norm=norm("attention_norm"),
            query=projection("query"),
            key=projection("key"),
            value=projection("value"),
            query_norm=optional("query_norm", has_head_norms),
            key_norm=optional("key_norm", has_head_norms),
            output=projection("output"),
            feed_forward_norm=norm("feed_forward_norm"),
            gate=projection("gate"),
            up=projection("up"),
            down=projection("down"),
            output_norm=optional("output_norm", has_output_norms),
            down_norm=optional("down_norm", has_output_norms),
        )

    def _matrix(self, name: str, *, is_looked_up: bool = False) -> Matrix:
        tensor = self._stored[name]
        size = tensor.shape
        label = f"{self._owner}tensor {name!r}"
        held = held_format(name, tensor.format)
        format = _final_format(name, tensor, self._format)
        is_in_file = held == tensor.format and not tensor.spare_rows
        if is_looked_up and is_in_file and format == held:
            return Matrix.in_file(tensor.path, tensor.offset, held, size[0], size[1], label)
        parts = (converted(part, tensor.format, label) for part in tensor.parts())
        packed = Matrix.pack_parts(parts, held, size[0], size[1], label)
        if format == held and not any(tensor.margins):
            return packed
        left, right = tensor.margins
        wanted = packed.dequantise()[:, left : size[1] - right]
        return Matrix.from_float(wanted, format, label)

    def _vector(self, name: str) -> Float[Tensor, " width"]:
        return self._stored[name].tensor()


def _check_target(format: str | None, stored: Mapping[str, StoredTensor]) -> None:
    if format is None or format in FLOAT_TYPES:
        return
    if format not in TARGET_FORMATS:
        raise InvalidRequestError(
            f"format must be one of {', '.join(TARGET_FORMATS)}, got {format!r}"
        )
    for tensor in stored.values():
        if tensor.format not in FLOAT_TYPES and tensor.format != format:
            raise RequantisedError(
                f"format {format} would quantise {tensor.name!r} again, which is {tensor.format}; "
                "give a checkpoint in floats, or no format"
            )


def _final_format(name: str, tensor: StoredTensor, format: str | None) -> str:
    """What a matrix becomes, if `format` is asked for."""
    held = format or held_format(name, tensor.format)
    # Other blocks than the file's would round the values again.
    return "F32" if any(tensor.margins) and held not in FLOAT_TYPES else held


def _needed_bytes(stored: Mapping[str, StoredTensor], format: str | None) -> int:
    """What the weights will take once they are packed."""
    return sum(
        tensor.num_bytes
        if format is None and tensor.format in FORMATS and not any(tensor.margins)
        else num_bytes(_final_format(name, tensor, format), math.prod(tensor.wanted_shape))
        for name, tensor in stored.items()
    )
