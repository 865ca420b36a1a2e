"""A decoder's shape as a `config.json` of `transformers`, which is read again as the same."""

from collections.abc import Mapping
from dataclasses import fields

import torch

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.native.config import ARCHITECTURES, DecoderConfig, decoder_config_from_json
from draftsmith.models.native.rotary import RotaryConfig

__all__ = ["config_json"]

_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def config_json(config: DecoderConfig, dtype: torch.dtype, name: str) -> dict[str, object]:
    """The `config.json` of a decoder.

    Args:
        config: Its shape.
        dtype: Of the stored weights.
        name: For the message.

    Returns:
        What JSON holds. Read again, it is the same shape.

    Raises:
        InvalidRequestError: The layout has no words for something: it is named.
    """
    kind = config.architecture
    if kind not in ARCHITECTURES:
        raise _unsaid(name, "architecture", kind, f"of {', '.join(ARCHITECTURES)}")
    if config.rotary.told is None:
        raise _unsaid(name, "rotary positions", "frequencies of its own", "a base and a scaling")
    told = dict(config.rotary.told)
    found: dict[str, object] = {
        "architectures": [f"{_CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": config.activation,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": told["rope_theta"],
        "rope_parameters": told,
        "max_position_embeddings": config.context_length,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.is_tied,
        "attention_bias": kind in ("llama", "qwen3") and "output" in config.biases,
        "bos_token_id": None,
        "eos_token_id": list(config.eos_token_ids) or None,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **_windows(config),
    }
    _check(config, found, name)
    return found


def _windows(config: DecoderConfig) -> dict[str, object]:
    """The sliding windows, in the keys of the family."""
    window = next((one for one in config.windows if one is not None), None)
    if config.architecture == "mistral":
        return {"sliding_window": window}
    if config.architecture not in ("qwen2", "qwen3"):
        return {}
    types = ["full_attention" if one is None else "sliding_attention" for one in config.windows]
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": 0 if window else config.num_layers,
        "layer_types": types,
    }


def _check(config: DecoderConfig, found: Mapping[str, object], name: str) -> None:
    """Refuse what would be read as another shape."""
    try:
        read = decoder_config_from_json(found)
    except ModelFormatError as error:
        raise InvalidRequestError(
            f"{name} cannot be written in the layout of transformers ({error}): give another target"
        ) from error
    for field in fields(config):
        one, other = getattr(config, field.name), getattr(read, field.name)
        is_same = _turns_alike(one, other) if isinstance(one, RotaryConfig) else one == other
        if not is_same:
            raise _unsaid(name, field.name, one, repr(other))


def _turns_alike(one: RotaryConfig, other: object) -> bool:
    return (
        isinstance(other, RotaryConfig)
        and one.scale == other.scale
        and torch.equal(one.inverse_frequencies, other.inverse_frequencies)
    )


def _unsaid(name: str, what: str, value: object, known: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{name} has {what} {value!r:.60}, and the layout of transformers says {known} there: give "
        "another target"
    )
