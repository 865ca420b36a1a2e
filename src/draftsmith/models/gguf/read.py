"""From a GGUF file to a decoder's shape and weights."""

from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.families import Family, family_of
from draftsmith.models.gguf.fused import split_tensors
from draftsmith.models.gguf.header import GgufHeader, GgufTensor, read_header
from draftsmith.models.gguf.shape import decoder_config_from_gguf
from draftsmith.models.gguf.special import end_token_ids
from draftsmith.models.gguf.vocabulary import read_vocabulary
from draftsmith.models.native.bounds import check_sizes, extent_of, named_after
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.names import GGUF
from draftsmith.models.native.read import read_weights
from draftsmith.models.native.shards import Part
from draftsmith.models.native.stored import StoredTensor
from draftsmith.models.native.weights import DecoderWeights

__all__ = ["read_gguf"]

_LAYERS = ("block_count",)
_SIZES = (
    *("embedding_length", "feed_forward_length", "vocab_size", "rope.dimension_count"),
    *("attention.head_count", "attention.head_count_kv"),
    *("attention.key_length", "attention.value_length"),
)


def read_gguf(
    path: Path, format: str | None = None, part: Part | None = None
) -> tuple[DecoderConfig, DecoderWeights]:
    """Read a model, or one rank's part of it, from a GGUF file.

    Args:
        path: The file.
        format: One of `native.read.TARGET_FORMATS`, to convert every matrix to it; None keeps the
            file's, or what `kernels.stand_ins` holds it as.
        part: Whose weights are read, as `native.shards` cuts them; None is the whole model.

    Returns:
        The whole model's shape, and the weights; norms and biases are float32.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: The file is not whole, is of a kind that has no native decoder, says
            something that is not known, holds other tensors than it means, or does not fit in
            memory.
        InvalidRequestError: `format` is unknown, or would quantise quantised weights again; or the
            model cannot be cut into such parts.

    Example:
        >>> from pathlib import Path
        >>> config, weights = read_gguf(Path("model.gguf"))
        >>> config.architecture, len(weights.layers)
        ('llama', 2)
    """
    with named_after(path):
        header = read_header(path)
        _, family = family_of(header.values)
        tensors = {tensor.name: _stored(tensor) for tensor in header.tensors}
        config = _config(header, family, tensors)
        if "tokenizer.ggml.tokens" in header.arrays:
            endings = end_token_ids(read_vocabulary(path, header))
            config = replace(config, eos_token_ids=endings)
        for name in family.factor_tensors:
            tensors.pop(name, None)
        if family.is_fused:
            tensors = split_tensors(tensors, config)
        stored = {name: _ordered(tensor, family, config) for name, tensor in tensors.items()}
        return config, read_weights(config, GGUF, stored, format, part)


def _stored(tensor: GgufTensor) -> StoredTensor:
    shape = tuple(reversed(tensor.shape))
    return StoredTensor(
        tensor.name, tensor.type_name, shape, tensor.path, tensor.offset, tensor.num_bytes
    )


def _config(header: GgufHeader, family: Family, tensors: dict[str, StoredTensor]) -> DecoderConfig:
    if GGUF.embedding not in tensors:
        raise ModelFormatError(f"it lacks tensor {GGUF.embedding!r}; fetch it again, whole")

    def factors(name: str) -> Float[Tensor, " half_head"] | None:
        is_there = name in family.factor_tensors and name in tensors
        return tensors[name].tensor() if is_there else None

    kind = header.values.get("general.architecture")
    extent = extent_of(tensor.shape for tensor in tensors.values())
    layers, sizes = ([f"{kind}.{key}" for key in keys] for keys in (_LAYERS, _SIZES))
    check_sizes(header.values, layers, sizes, extent)
    if not tensors[GGUF.embedding].shape:
        raise ModelFormatError(f"tensor {GGUF.embedding!r} is one number; fetch it again")
    num_ids = tensors[GGUF.embedding].shape[0]
    return decoder_config_from_gguf(header.values, num_ids, tensors, factors)


def _ordered(tensor: StoredTensor, family: Family, config: DecoderConfig) -> StoredTensor:
    """The tensor with its rows in the order of `transformers`: rotary pairs are halves apart."""
    if not family.is_interleaved:
        return tensor
    if ".attn_q." in tensor.name:
        return tensor.interleaved(config.num_heads)
    return tensor.interleaved(config.num_kv_heads) if ".attn_k." in tensor.name else tensor
