"""A GGUF file as a model object of `transformers`, built from our own reading of it.

Config, positions and weights are those of `models/gguf/`, so that both implementations are one
model: that library's own conversion passes over scalings, factors and scales that it does not know,
and fills up missing tensors with random numbers.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.names import TRANSFORMERS, check_names
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = ["load_gguf_model"]

_ATTENTION = {"query", "key", "value", "output"}


def load_gguf_model(path: Path, dtype: torch.dtype) -> Any:
    """The model in a GGUF file, dequantised to `dtype`.

    Raises:
        ModelFormatError: As `read_gguf`, or if `transformers` has no class that computes such a
            model; the message says why.
    """
    shape, packed = read_gguf(path)
    try:
        config = _config(shape)
    except ModelFormatError as error:
        raise ModelFormatError(f"{path}: {error}") from error
    weights = {name: tensor.to(dtype) for name, tensor in _weights(shape, packed)}
    kind: Any = AutoModelForCausalLM._model_mapping[type(config)]
    _check_all(kind, config, weights)
    model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    _set_positions(model, shape)
    return model


def _config(shape: DecoderConfig) -> Any:
    """The config of the class that computes such a model."""
    return AutoConfig.for_model(
        shape.architecture,
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.is_tied,
        eos_token_id=_one_or_all(shape.eos_token_ids),
        bos_token_id=None,
        pad_token_id=None,
        **_bias_options(shape),
    )


def _one_or_all(ids: tuple[int, ...]) -> int | list[int] | None:
    return ids[0] if len(ids) == 1 else list(ids) or None


def _bias_options(shape: DecoderConfig) -> dict[str, bool]:
    """Which matrices have a bias, where a class lets its config say so."""
    if shape.architecture == "qwen2":
        return {}
    found = set(shape.biases)
    attention, rest = found & _ATTENTION, found - _ATTENTION
    if attention not in (set(), _ATTENTION) or rest not in (set(), {"gate", "up", "down"}):
        raise ModelFormatError(
            f"it has biases of {', '.join(shape.biases)} only, which no class of transformers has; "
            "use it without transformers"
        )
    return {"attention_bias": bool(attention), "mlp_bias": bool(rest)}


def _weights(shape: DecoderConfig, weights: DecoderWeights) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in `transformers`."""
    yield TRANSFORMERS.embedding, weights.embedding.dequantise()
    yield TRANSFORMERS.final_norm, weights.final_norm
    if not shape.is_tied:
        yield TRANSFORMERS.head, weights.head.dequantise()
    for number, layer in enumerate(weights.layers):
        for field in TRANSFORMERS.parts:
            yield from _part(number, field, layer)


def _part(number: int, field: str, layer: LayerWeights) -> Iterator[tuple[str, Tensor]]:
    value = getattr(layer, field)
    if isinstance(value, Projection):
        yield TRANSFORMERS.part(number, field), value.matrix.dequantise()
        if value.bias is not None:
            yield TRANSFORMERS.part(number, field, "bias"), value.bias
    elif value is not None:
        yield TRANSFORMERS.part(number, field), value


def _check_all(kind: Any, config: Any, weights: dict[str, Tensor]) -> None:
    """Both ways: the library would draw a weight that it misses at random."""
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in kind(config).state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop(TRANSFORMERS.head, None)
    check_names({name: tuple(tensor.shape) for name, tensor in weights.items()}, wanted)


def _set_positions(model: Any, shape: DecoderConfig) -> None:
    """Put our frequencies in the place of those that the class has computed."""
    module = model.model.rotary_emb
    for name in ("inv_freq", "original_inv_freq"):
        getattr(module, name).copy_(shape.rotary.inverse_frequencies)
    module.attention_scaling = shape.rotary.scale
