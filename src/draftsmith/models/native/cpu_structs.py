"""The plain structures that a decoder hands to C++: those of `kernels/cpu/source/decoder.h`."""

import ctypes
from typing import Any

from torch import Tensor

from draftsmith.kernels.cpu.library import pointer
from draftsmith.kernels.matrix import MatrixStruct
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = [
    "PASS_BYTES",
    "DecoderStruct",
    "PassStruct",
    "SequenceStruct",
    "address",
    "decoder_struct",
    "projections",
]

_PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
"""Of a layer, in the order of `DsLayer`."""

_FLOAT_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32


def projections(layer: LayerWeights) -> list[Projection]:
    """A layer's, in the order of `DsLayer`."""
    return [getattr(layer, name) for name in _PROJECTIONS]


class _ProjectionStruct(ctypes.Structure):
    """`DsProjection`."""

    _fields_ = (("matrix", MatrixStruct), ("bias", _FLOAT_POINTER))


class _LayerStruct(ctypes.Structure):
    """`DsLayer`."""

    _fields_ = (
        ("attention_norm", _FLOAT_POINTER),
        ("query_norm", _FLOAT_POINTER),
        ("key_norm", _FLOAT_POINTER),
        ("feed_forward_norm", _FLOAT_POINTER),
        *((name, _ProjectionStruct) for name in _PROJECTIONS),
        ("window", _INT),
        ("reserved", _INT),
    )


class DecoderStruct(ctypes.Structure):
    """`DsDecoder`."""

    _fields_ = (
        *(
            (name, _INT)
            for name in (
                "num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_size",
                "intermediate_size", "cache_is_half", "exact_activations",
            )
        ),
        ("norm_epsilon", ctypes.c_float),
        ("rotary_scale", ctypes.c_float),
        ("inverse_frequencies", _FLOAT_POINTER),
        ("final_norm", _FLOAT_POINTER),
        ("embedding", MatrixStruct),
        ("head", MatrixStruct),
        ("layers", ctypes.c_void_p),
    )  # fmt: skip


class SequenceStruct(ctypes.Structure):
    """`DsSequence`."""

    _fields_ = (
        ("num_tokens", _INT),
        ("past", _INT),
        ("capacity", ctypes.c_int64),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


class PassStruct(ctypes.Structure):
    """`DsPass`."""

    _fields_ = (
        ("sequences", ctypes.c_void_p),
        ("num_sequences", _INT),
        ("num_logits", _INT),
        ("tokens", ctypes.c_void_p),
        ("logit_tokens", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("head_tiles", ctypes.c_void_p),
        ("num_head_tiles", _INT),
        ("num_threads", _INT),
        ("nanoseconds", ctypes.c_void_p),
        ("parents", ctypes.c_void_p),
        ("boundaries", ctypes.c_void_p),
        ("num_boundaries", ctypes.c_int64),
        ("states", ctypes.c_void_p),
    )


PASS_BYTES = ctypes.sizeof(PassStruct)


def decoder_struct(
    weights: DecoderWeights, config: DecoderConfig, is_half: bool, exact_activations: bool
) -> tuple[DecoderStruct, list[object]]:
    """The model for C, and what must live as long as it."""
    kept: list[object] = [weights]

    def vector(values: Tensor | None) -> int | None:
        if values is None:
            return None
        kept.append(held := values.float().contiguous())
        return pointer(held)

    def projection(one: Projection) -> _ProjectionStruct:
        return _ProjectionStruct(one.matrix.struct(), vector(one.bias))

    def layer(one: LayerWeights, window: int | None) -> _LayerStruct:
        norms = (one.attention_norm, one.query_norm, one.key_norm, one.feed_forward_norm)
        return _LayerStruct(*map(vector, norms), *map(projection, projections(one)), window or 0, 0)

    layers = (_LayerStruct * config.num_layers)(*map(layer, weights.layers, config.windows))
    kept.append(layers)
    struct = DecoderStruct(
        config.num_layers,
        config.hidden_size,
        config.num_heads,
        config.num_kv_heads,
        config.head_size,
        config.intermediate_size,
        is_half,
        exact_activations,
        config.norm_epsilon,
        config.rotary.scale,
        vector(config.rotary.inverse_frequencies),
        vector(weights.final_norm),
        weights.embedding.struct(),
        weights.head.struct(),
        address(layers),
    )
    return struct, kept


def address(data: ctypes.Structure | ctypes.Array[Any] | None) -> int | None:
    """Where it lies; None for none."""
    return None if data is None else ctypes.addressof(data)
