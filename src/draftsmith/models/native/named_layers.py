"""A dense layer as tensors by the names of a checkpoint, and back."""

from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.dense import DenseLayer, DenseLinear
from draftsmith.models.native.names import Naming

__all__ = ["layer_of", "named_layer"]

_MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
_VECTORS = ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")


def named_layer(layer: DenseLayer, naming: Naming, number: int) -> dict[str, Tensor]:
    """The tensors of a layer by name.

    Args:
        layer: Of a family without norms of what its parts add.
        naming: The convention.
        number: Of the layer, in the names.
    """
    found: dict[str, Tensor] = {}
    for field in fields(layer):
        value: DenseLinear | Tensor | None = getattr(layer, field.name)
        if isinstance(value, DenseLinear):
            found[naming.part(number, field.name)] = value.weight
            if value.bias is not None:
                found[naming.part(number, field.name, "bias")] = value.bias
        elif value is not None:
            found[naming.part(number, field.name)] = value
    return found


def layer_of(
    tensors: Mapping[str, Tensor], naming: Naming, config: DecoderConfig, number: int
) -> DenseLayer:
    """The layer that some tensors are: the tensors themselves, not copies.

    Args:
        tensors: By name.
        naming: The convention.
        config: Of the decoder.
        number: Of the layer, in the names.
    """

    def linear(field: str) -> DenseLinear:
        bias = naming.part(number, field, "bias") if field in config.biases else None
        return DenseLinear(
            tensors[naming.part(number, field)], None if bias is None else tensors[bias]
        )

    vectors = {field: tensors.get(naming.part(number, field)) for field in _VECTORS}
    matrices = {field: linear(field) for field in _MATRICES}
    return DenseLayer(**vectors, **matrices, output_norm=None, down_norm=None)  # pyright: ignore[reportArgumentType] # typed by field, not by name
