"""A GGUF file as a model object of `transformers`, built from our own reading of it.

Config, positions and weights are those of `models/gguf/`, so that both implementations are one
model: that library's own conversion passes over scalings, factors and scales that it does not know,
and fills up missing tensors with random numbers.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.hf.attention import attention_options
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.names import TRANSFORMERS, Naming, check_names
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = ["load_gguf_model"]

_ATTENTION = {"query", "key", "value", "output"}
_MODEL_TYPES = {"gemma3": "gemma3_text"}
"""Where `transformers` has another name for an architecture of llama.cpp."""
_GEMMA = replace(
    TRANSFORMERS,
    parts=TRANSFORMERS.parts
    | {
        "output_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm",
        "down_norm": "post_feedforward_layernorm",
    },
)
"""What the classes of Gemma 2 and 3 call their parts."""


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
    model = kind.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        trust_remote_code=False,
        **attention_options(config),
    )
    _set_positions(model, shape)
    return model


def _config(shape: DecoderConfig) -> Any:
    """The config of the class that computes such a model."""
    return AutoConfig.for_model(
        _MODEL_TYPES.get(shape.architecture, shape.architecture),
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.is_tied,
        eos_token_id=_one_or_all(shape.eos_token_ids),
        bos_token_id=None,
        pad_token_id=None,
        **_own_options(shape),
    )


def _own_options(shape: DecoderConfig) -> dict[str, Any]:
    """What only some classes know; a class that takes no `head_dim` cannot have another one."""
    scales, head = shape.scales, {"head_dim": shape.head_size}
    match shape.architecture:
        case "qwen2" | "qwen3":
            return head if shape.architecture == "qwen3" else _usual_head(shape)
        case "granite":
            options = {
                "embedding_multiplier": scales.embedding,
                "residual_multiplier": scales.residual,
                "attention_multiplier": scales.attention or shape.head_size**-0.5,
                "logits_scaling": 1.0 / scales.logits,
            }
            return options | _usual_head(shape) | _bias_options(shape)
        case "phi3":
            share = 2 * len(shape.rotary.inverse_frequencies) / shape.head_size
            return {"sliding_window": None, "partial_rotary_factor": share} | _usual_head(shape)
        case "gemma":
            return head
        case "gemma2" | "gemma3":
            return head | _gemma_options(shape)
        case _:
            return head | _bias_options(shape)


def _usual_head(shape: DecoderConfig) -> dict[str, Any]:
    if shape.head_size * shape.num_heads != shape.hidden_size:
        usual = shape.hidden_size // shape.num_heads
        raise ModelFormatError(
            f"its heads have {shape.head_size} elements, but those of {shape.architecture} in "
            f"transformers have {usual}; use it without transformers"
        )
    return {}


def _gemma_options(shape: DecoderConfig) -> dict[str, Any]:
    scales = shape.scales
    scalar = shape.head_size if scales.attention is None else round(scales.attention**-2)
    kinds = ["full_attention" if w is None else "sliding_attention" for w in shape.windows]
    return {
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": scales.attention_cap,
        "final_logit_softcapping": scales.logit_cap,
        "sliding_window": next((w for w in shape.windows if w is not None), None),
        "layer_types": kinds,
    }


def _one_or_all(ids: tuple[int, ...]) -> int | list[int] | None:
    return ids[0] if len(ids) == 1 else list(ids) or None


def _bias_options(shape: DecoderConfig) -> dict[str, Any]:
    """Which matrices have a bias, where a class lets its config say so."""
    found = set(shape.biases)
    attention, rest = found & _ATTENTION, found - _ATTENTION
    if attention not in (set(), _ATTENTION) or rest not in (set(), {"gate", "up", "down"}):
        raise ModelFormatError(
            f"it has biases of {', '.join(shape.biases)} only, which no class of transformers has; "
            "use it without transformers"
        )
    return {"attention_bias": bool(attention), "mlp_bias": bool(rest)}


# --- weights ----------------------------------------------------------------------------------


def _weights(shape: DecoderConfig, weights: DecoderWeights) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in `transformers`."""
    naming = _GEMMA if shape.normalises_outputs else TRANSFORMERS
    # Gemma's classes add 1 to the weight of a norm, llama.cpp's conversion has done so already.
    offset = 1.0 if shape.architecture.startswith("gemma") else 0.0
    yield naming.embedding, weights.embedding.dequantise()
    yield naming.final_norm, weights.final_norm - offset
    if not shape.is_tied:
        yield naming.head, weights.head.dequantise()
    for number, layer in enumerate(weights.layers):
        found = {
            name: tensor - offset if "norm" in name else tensor
            for field in naming.parts
            for name, tensor in _part(naming, number, field, layer)
        }
        yield from (_fused(number, found) if shape.architecture == "phi3" else found).items()


def _part(
    naming: Naming, number: int, field: str, layer: LayerWeights
) -> Iterator[tuple[str, Tensor]]:
    value = getattr(layer, field)
    if isinstance(value, Projection):
        yield naming.part(number, field), value.matrix.dequantise()
        if value.bias is not None:
            yield naming.part(number, field, "bias"), value.bias
    elif value is not None:
        yield naming.part(number, field), value


def _fused(number: int, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Phi-3's class has query, key and value in one matrix, gate and up in another."""
    prefix = TRANSFORMERS.layer.format(number)
    for whole, fields in (
        ("self_attn.qkv_proj", ("query", "key", "value")),
        ("mlp.gate_up_proj", ("gate", "up")),
    ):
        parts = [found.pop(TRANSFORMERS.part(number, field)) for field in fields]
        found[f"{prefix}{whole}.weight"] = torch.cat(parts)
    return found


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
    places = {"": shape.rotary}
    if shape.local_rotary is not None:
        places = {"full_attention_": shape.rotary, "sliding_attention_": shape.local_rotary}
    for prefix, rotary in places.items():
        for name in (f"{prefix}inv_freq", f"{prefix}original_inv_freq"):
            # A class has no place for a kind of layer that the model lacks.
            if not prefix or hasattr(module, name):
                getattr(module, name).copy_(rotary.inverse_frequencies)
        setattr(module, f"{prefix}attention_scaling", rotary.scale)
