"""From a GGUF file or a folder of safetensors to a decoder's shape and weights.

Tensors are read one by one into buffers of their own, so that no more than the packed weights
and one tensor are held at a time.
"""

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.matrix import FORMATS, Matrix
from draftsmith.models.gguf.header import GgufHeader, GgufTensor, read_header
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.config import (
    DecoderConfig,
    decoder_config_from_gguf,
    decoder_config_from_json,
)
from draftsmith.models.native.memory import available_memory, check_fits
from draftsmith.models.native.names import GGUF, TRANSFORMERS, Naming, check_names
from draftsmith.models.native.stored import FLOAT_TYPES, StoredTensor
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = [
    "TARGET_FORMATS",
    "native_architecture",
    "needs_native_reading",
    "read_folder",
    "read_gguf",
]

TARGET_FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_1")
"""The formats that matrices can be converted to."""

_BYTES_PER_WEIGHT = {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34 / 32, "Q4_1": 20 / 32}
_ROPE_FACTORS = "rope_freqs.weight"
_OLD_BUFFER = "rotary_emb.inv_freq"  # old checkpoints carry what follows from the config


def read_gguf(path: Path, format: str | None = None) -> tuple[DecoderConfig, DecoderWeights]:
    """Read a model from a GGUF file.

    Args:
        path: The file.
        format: One of `TARGET_FORMATS`, to convert every matrix to it; None keeps the file's.

    Returns:
        The model's shape and its weights; norms and biases are float32.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: The file is not whole, is of a kind that has no native decoder, holds
            other tensors than its config means, or does not fit in memory.
        InvalidRequestError: `format` is unknown, or would quantise quantised weights again.
    """
    with _named_after(path):
        header = read_header(path)
        config = _gguf_config(path, header)
        stored = {
            tensor.name: _gguf_tensor(path, tensor, config)
            for tensor in header.tensors
            if tensor.name != _ROPE_FACTORS
        }
        return config, _Reader(config, GGUF, stored, format).read_all()


def read_folder(folder: Path, format: str | None = None) -> tuple[DecoderConfig, DecoderWeights]:
    """Read a model from a folder that `save_pretrained` wrote.

    Args:
        folder: It holds `config.json` and safetensors.
        format: One of `TARGET_FORMATS`, to convert or quantise every matrix to it, the
            embedding included; None keeps the checkpoint's.

    Returns:
        The model's shape and its weights; norms and biases are float32.

    Raises:
        ModelNotFoundError: There is no such folder.
        ModelFormatError: As `read_gguf`.
        InvalidRequestError: `format` is unknown.
    """
    with _named_after(folder):
        stored = {
            tensor.name: tensor
            for tensor in open_checkpoint(folder).values()
            if not tensor.name.endswith(_OLD_BUFFER)
        }
        config = _folder_config(folder)
        if config.is_tied and not _is_same(stored, TRANSFORMERS.head, TRANSFORMERS.embedding):
            config = replace(config, is_tied=False)
        elif config.is_tied:
            stored.pop(TRANSFORMERS.head, None)
        return config, _Reader(config, TRANSFORMERS, stored, format).read_all()


def native_architecture(source: Path | Mapping[str, object]) -> str | None:
    """Say whether a model can run natively.

    Args:
        source: A GGUF file, a folder, or a parsed `config.json`.

    Returns:
        Its architecture; None if it needs another implementation, or is malformed.

    Raises:
        ModelNotFoundError: There is no such file or folder.

    Example:
        assert native_architecture({"model_type": "mamba"}) is None
    """
    try:
        if not isinstance(source, Path):
            return decoder_config_from_json(source).architecture
        if source.is_dir():
            open_checkpoint(source)
            return _folder_config(source).architecture
        header = read_header(source)
        _check_formats({tensor.name: tensor.type_name for tensor in header.tensors})
        return _gguf_config(source, header).architecture
    except ModelFormatError:
        return None


def needs_native_reading(path: Path) -> bool:
    """Whether a GGUF file holds what the conversion of `transformers` passes over.

    Llama 3.1 keeps the scaling of its rotary frequencies in a tensor, and llama.cpp reorders
    the biases of queries and keys with their weights.
    """
    architecture = native_architecture(path)
    names = {tensor.name for tensor in read_header(path).tensors}
    has_biases = architecture == "llama" and "blk.0.attn_q.bias" in names
    return has_biases or (architecture is not None and _ROPE_FACTORS in names)


# --- sources ----------------------------------------------------------------------------------


def _gguf_tensor(path: Path, tensor: GgufTensor, config: DecoderConfig) -> StoredTensor:
    """A tensor of a GGUF file, its rows in the order of `transformers`."""
    heads = 0
    if config.architecture == "llama" and ".attn_q." in tensor.name:
        heads = config.num_heads
    elif config.architecture == "llama" and ".attn_k." in tensor.name:
        heads = config.num_kv_heads
    shape = tuple(reversed(tensor.shape))
    place = (path, tensor.offset, tensor.num_bytes)
    return StoredTensor(tensor.name, tensor.type_name, shape, *place, heads)


def _gguf_config(path: Path, header: GgufHeader) -> DecoderConfig:
    tensors = {tensor.name: tensor for tensor in header.tensors}
    if GGUF.embedding not in tensors:
        raise ModelFormatError(f"it lacks tensor {GGUF.embedding!r}; fetch it again, whole")
    factors = None
    if _ROPE_FACTORS in tensors:
        tensor = tensors[_ROPE_FACTORS]
        place = (path, tensor.offset, tensor.num_bytes)
        factors = StoredTensor(_ROPE_FACTORS, tensor.type_name, tensor.shape, *place).tensor()
    return decoder_config_from_gguf(
        header.values, tensors[GGUF.embedding].shape[-1], tensors, factors
    )


def _folder_config(folder: Path) -> DecoderConfig:
    path, beside = folder / "config.json", folder / "generation_config.json"
    if not path.is_file():
        raise ModelFormatError("it holds no config.json; give a model's folder")
    return decoder_config_from_json(_json(path), _json(beside) if beside.is_file() else None)


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
    ) -> None:
        wanted = naming.shapes(config)
        check_names({name: tensor.shape for name, tensor in stored.items()}, wanted)
        _check_formats({name: tensor.format for name, tensor in stored.items()})
        _check_target(format, stored)
        check_fits(_needed_bytes(stored, format), available_memory())
        self._config, self._naming, self._stored, self._format = config, naming, stored, format

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

        has_head_norms = self._config.normalises_heads
        return LayerWeights(
            attention_norm=norm("attention_norm"),
            query=projection("query"),
            key=projection("key"),
            value=projection("value"),
            query_norm=norm("query_norm") if has_head_norms else None,
            key_norm=norm("key_norm") if has_head_norms else None,
            output=projection("output"),
            feed_forward_norm=norm("feed_forward_norm"),
            gate=projection("gate"),
            up=projection("up"),
            down=projection("down"),
        )

    def _matrix(self, name: str, *, is_looked_up: bool = False) -> Matrix:
        tensor = self._stored[name]
        num_outputs, num_inputs = tensor.shape
        label = f"tensor {name!r}"
        is_kept = self._format is None or self._format == tensor.format
        if is_looked_up and is_kept:
            return Matrix.map(
                tensor.path, tensor.offset, tensor.format, num_outputs, num_inputs, label
            )
        packed = Matrix.pack_parts(tensor.parts(), tensor.format, num_outputs, num_inputs, label)
        if is_kept:
            return packed
        return Matrix.from_float(packed.dequantise(), str(self._format), label)

    def _vector(self, name: str) -> Float[Tensor, " width"]:
        return self._stored[name].tensor()


def _check_formats(formats: Mapping[str, str]) -> None:
    for name, format in formats.items():
        if format not in FORMATS:
            raise ModelFormatError(
                f"tensor {name!r} is {format}, which has no native kernel; "
                f"convert the model to one of {', '.join(FORMATS)}"
            )


def _check_target(format: str | None, stored: Mapping[str, StoredTensor]) -> None:
    if format is None or format in FLOAT_TYPES:
        return
    if format not in TARGET_FORMATS:
        raise InvalidRequestError(
            f"format must be one of {', '.join(TARGET_FORMATS)}, got {format!r}"
        )
    for tensor in stored.values():
        if tensor.format not in FLOAT_TYPES and tensor.format != format:
            raise InvalidRequestError(
                f"format {format} would quantise {tensor.name!r} again, which is {tensor.format}; "
                "give a checkpoint in floats, or no format"
            )


def _needed_bytes(stored: Mapping[str, StoredTensor], format: str | None) -> int:
    """What the weights will take once they are packed."""
    if format is None:
        return sum(tensor.num_bytes for tensor in stored.values())
    num_weights = sum(math.prod(tensor.shape) for tensor in stored.values())
    return int(num_weights * _BYTES_PER_WEIGHT[format])


@contextmanager
def _named_after(path: Path) -> Generator[None]:
    """Put the file's name before an error that does not begin with it."""
    try:
        yield
    except ModelFormatError as error:
        if str(error).startswith(str(path)):
            raise
        raise ModelFormatError(f"{path}: {error}") from error
