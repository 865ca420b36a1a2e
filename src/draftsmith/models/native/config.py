"""The shape of a decoder; from a `config.json`, or (`models/gguf/shape.py`) from a GGUF file."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.bounds import MOST_LAYERS
from draftsmith.models.native.rotary import RotaryConfig, scaled_rotary

__all__ = [
    "ARCHITECTURES",
    "DecoderConfig",
    "RotaryConfig",
    "Scales",
    "decoder_config_from_json",
    "number_option",
    "size_option",
    "unsupported",
]

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""The `model_type`s that run natively; SmolLM's is llama."""

_QUERY_KEY_VALUE = ("query", "key", "value")
_ALL_OF_ATTENTION = (*_QUERY_KEY_VALUE, "output")
_DEFAULT_THETA = 10_000.0
# What transformers' classes take for a key that a config.json leaves out.
_DEFAULT_WINDOW = 4096
_DEFAULT_MAX_WINDOW_LAYERS = 28
_DEFAULT_EOS = {"llama": 2, "mistral": 2}
_DEFAULT_QWEN3_HEAD = 128
_MOST = 2**31 - 1
_MOST_HEAD = 65_536
_LARGEST = sys.float_info.max
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Scales:
    """Fixed factors and caps that some families put into the arithmetic."""

    embedding: float = 1.0
    """Multiplies a token's embedding (Granite, Gemma)."""
    residual: float = 1.0
    """Multiplies what attention and feed-forward add (Granite)."""
    attention: float | None = None
    """Multiplies query times key; None is `1 / sqrt(head_size)`."""
    logits: float = 1.0
    """Multiplies the logits (Granite)."""
    attention_cap: float | None = None
    """Scores become `cap * tanh(score / cap)` (Gemma 2); None leaves them."""
    logit_cap: float | None = None
    """The same for the logits."""


@dataclass(frozen=True)
class DecoderConfig:
    """What the families that we decode ourselves differ in."""

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    norm_epsilon: float
    rotary: RotaryConfig
    windows: tuple[int | None, ...]
    """Sliding window of each layer (a query sees that many keys, itself included); None is all."""
    eos_token_ids: tuple[int, ...]
    biases: tuple[str, ...] = ()
    """Which of a layer's matrices (`query`, `gate`, …) have a bias, in every layer."""
    normalises_heads: bool = False
    """Whether query and key heads pass through an RMSNorm (Qwen3)."""
    is_tied: bool = False
    """Whether the head is the embedding."""
    scales: Scales = field(default_factory=Scales)
    activation: Literal["silu", "gelu"] = "silu"
    """Of the gate; `gelu` is its approximation by tanh (Gemma)."""
    normalises_outputs: bool = False
    """Whether what attention and feed-forward add passes through an RMSNorm first (Gemma 2, 3)."""
    local_rotary: RotaryConfig | None = None
    """Of the layers with a window; None is `rotary` (Gemma 3 has two)."""

    def __post_init__(self) -> None:
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ModelFormatError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key and value heads"
            )
        if self.head_size < 2 or self.head_size % 2:
            raise ModelFormatError(f"head size {self.head_size} has no halves to rotate")
        if 2 * len(self.rotary.inverse_frequencies) > self.head_size:
            turned = 2 * len(self.rotary.inverse_frequencies)
            raise ModelFormatError(f"{turned} elements of a head of {self.head_size} are rotated")
        if len(self.windows) != self.num_layers:
            raise ModelFormatError(f"{len(self.windows)} windows for {self.num_layers} layers")

    def layer_rotary(self, layer: int) -> RotaryConfig:
        """The positions of one layer."""
        if self.local_rotary is None or self.windows[layer] is None:
            return self.rotary
        return self.local_rotary


# --- config.json ------------------------------------------------------------------------------


def decoder_config_from_json(
    config: Mapping[str, object], generation: Mapping[str, object] | None = None
) -> DecoderConfig:
    """Read a `config.json` of `transformers`, of version 5 or before.

    Args:
        config: The parsed file.
        generation: The parsed `generation_config.json` beside it, whose end-of-text ids come
            first; None if there is none.

    Returns:
        The shape; `is_tied` is what the config says, and the checkpoint may know better.

    Raises:
        ModelFormatError: If the model is of another kind, or uses a feature that the native
            decoders lack; the message names it.
    """
    kind = _check_json(config)
    heads, hidden = size_option(config, "num_attention_heads"), size_option(config, "hidden_size")
    fallback = _DEFAULT_QWEN3_HEAD if kind == "qwen3" else hidden // heads
    head_size = size_option(config, "head_dim", fallback, most=_MOST_HEAD)
    context_length = size_option(config, "max_position_embeddings")
    has_default_kv = kind == "llama" or "num_key_value_heads" in config
    return DecoderConfig(
        architecture=kind,
        num_layers=size_option(config, "num_hidden_layers", most=MOST_LAYERS),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=size_option(config, "num_key_value_heads", heads if has_default_kv else None),
        head_size=head_size,
        intermediate_size=size_option(config, "intermediate_size"),
        vocab_size=size_option(config, "vocab_size"),
        context_length=context_length,
        norm_epsilon=number_option(config, "rms_norm_eps", 1e-6),
        rotary=_json_rotary(config, head_size, context_length),
        windows=_json_windows(config, kind),
        eos_token_ids=_json_eos(config, generation or {}, kind),
        biases=_json_biases(config, kind),
        normalises_heads=kind == "qwen3",
        is_tied=config.get("tie_word_embeddings") is True,
    )


def _check_json(config: Mapping[str, object]) -> str:
    """The model's type, once nothing unknown is asked for."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise unsupported("model_type", kind, ", ".join(ARCHITECTURES))
    if config.get("hidden_act", "silu") != "silu":
        raise unsupported("hidden_act", config["hidden_act"], "silu")
    if config.get("mlp_bias"):
        raise unsupported("mlp_bias", config["mlp_bias"], "false")
    own = config.get("auto_map")
    code = own.get("AutoModelForCausalLM") if isinstance(own, Mapping) else None
    if code is not None and not str(code).lower().endswith(f".{kind}forcausallm"):
        raise unsupported("auto_map", code, "code that transformers has as well")
    if config.get("quantization_config"):
        raise unsupported("quantization_config", "as given", "none: save the model in floats")
    return str(kind)


def _json_rotary(config: Mapping[str, object], head_size: int, context_length: int) -> RotaryConfig:
    """The old `rope_scaling` and `rope_theta`, or the new `rope_parameters`."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    options: dict[str, object] = dict(given) if isinstance(given, Mapping) else {"type": given}
    if any(isinstance(value, Mapping) for value in options.values()):
        raise unsupported("rope_parameters", "one a layer type", "one for all layers")
    for place in (config, options):
        if place.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
            value = place["partial_rotary_factor"]
            raise unsupported("partial_rotary_factor", value, "1.0")
    if config.get("original_max_position_embeddings") is not None:
        length = config["original_max_position_embeddings"]
        options["original_max_position_embeddings"] = length
    theta = number_option(
        options, "rope_theta", number_option(config, "rope_theta", _DEFAULT_THETA)
    )
    return scaled_rotary(theta, head_size, context_length, options)


def _json_windows(config: Mapping[str, object], kind: str) -> tuple[int | None, ...]:
    """The sliding window of each layer."""
    num_layers = size_option(config, "num_hidden_layers", most=MOST_LAYERS)
    window, first = _json_window(config, kind), 0
    if kind in ("qwen2", "qwen3"):
        first = size_option(config, "max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS, least=0)
    usual = [_FULL if window is None or layer < first else _SLIDING for layer in range(num_layers)]
    types = config.get("layer_types") or usual
    if not isinstance(types, list) or len(types) != num_layers:
        raise unsupported("layer_types", types, f"a list of {num_layers}")
    known = (_FULL,) if window is None else (_FULL, _SLIDING)
    for type in types:
        # transformers reads the list for the Qwen families alone.
        if type not in (known if kind in ("qwen2", "qwen3") else usual[:1]):
            raise unsupported("layer_types", type, " and ".join(known))
    return tuple(window if type == _SLIDING else None for type in types)


def _json_window(config: Mapping[str, object], kind: str) -> int | None:
    """The window of the layers that slide; None if there are none."""
    if kind == "llama" or (kind != "mistral" and not config.get("use_sliding_window")):
        return None
    # A window of null is none; one that is left out is the default of the family.
    is_null = config.get("sliding_window", 0) is None
    return None if is_null else size_option(config, "sliding_window", _DEFAULT_WINDOW)


def _json_biases(config: Mapping[str, object], kind: str) -> tuple[str, ...]:
    if kind == "qwen2":
        return _QUERY_KEY_VALUE
    has_option = kind in ("llama", "qwen3")
    return _ALL_OF_ATTENTION if has_option and config.get("attention_bias") else ()


def _json_eos(
    config: Mapping[str, object], generation: Mapping[str, object], kind: str
) -> tuple[int, ...]:
    ids = generation.get("eos_token_id")
    if ids is None:
        ids = config.get("eos_token_id", _DEFAULT_EOS.get(kind))
    found = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(id, int) and not isinstance(id, bool) for id in found):
        raise ModelFormatError(f"eos_token_id is {ids!r}; it must be a token id or a list of them")
    # -1 stands for none.
    return tuple(id for id in found if isinstance(id, int) and id >= 0)


# --- options -------------------------------------------------------------------------------------


def size_option(
    options: Mapping[str, object],
    key: str,
    default: int | None = None,
    *,
    least: int = 1,
    most: int = _MOST,
) -> int:
    """A whole number up to `most`; the default stands for one not given, or null.

    Raises:
        ModelFormatError: If it is anything else.
    """
    value = options.get(key)
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]  # one a layer, all the same
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelFormatError(
            f"the config has {key} {value!r:.60}; it must be a whole number from {least}"
        )
    if value > most:
        raise ModelFormatError(f"the config has {key} {value!r:.60}; it must be {most} at most")
    return value


def number_option(options: Mapping[str, object], key: str, default: float | None = None) -> float:
    """A number above 0; the default stands for one not given, or null.

    Raises:
        ModelFormatError: If it is anything else.
    """
    value = options.get(key)
    if value is None:
        value = default
    # A whole number of JSON may be larger than any float; NaN is above nothing.
    is_bool = isinstance(value, bool)
    if is_bool or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise ModelFormatError(f"the config has {key} {value!r:.60}; it must be a number above 0")
    return float(value)


def unsupported(name: str, value: object, known: str) -> ModelFormatError:
    """The error for what no native decoder computes; `known` is what one does."""
    return ModelFormatError(f"{name} is {value!r}, which no native decoder has, only {known}")
