"""The shape of a decoder, from `config.json` or from GGUF metadata."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.rotary import RotaryConfig, scaled_rotary

__all__ = [
    "ARCHITECTURES",
    "DecoderConfig",
    "RotaryConfig",
    "decoder_config_from_gguf",
    "decoder_config_from_json",
]

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""The `model_type`s that run natively; SmolLM's is llama."""

_GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")  # llama is Mistral's, too

_QUERY_KEY_VALUE = ("query", "key", "value")
_ALL_OF_ATTENTION = (*_QUERY_KEY_VALUE, "output")
_DEFAULT_THETA = 10_000.0
# What transformers' classes take for a key that a config.json leaves out.
_DEFAULT_WINDOW = 4096
_DEFAULT_MAX_WINDOW_LAYERS = 28
_DEFAULT_EOS = {"llama": 2, "mistral": 2}
_DEFAULT_QWEN3_HEAD = 128
_FULL, _SLIDING = "full_attention", "sliding_attention"
_GGUF_KEYS = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.sliding_window",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.finetuned",
    "expert_count", "expert_used_count", "tensor_data_layout",
}  # fmt: skip
"""All that may be said of an architecture; anything else could change the arithmetic."""


@dataclass(frozen=True)
class DecoderConfig:
    """What the Llama, Mistral, Qwen2, Qwen3 and SmolLM families differ in."""

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
    """Which of `query`, `key`, `value` and `output` have a bias, in every layer."""
    normalises_heads: bool = False
    """Whether query and key heads pass through an RMSNorm (Qwen3)."""
    is_tied: bool = False
    """Whether the head is the embedding."""

    def __post_init__(self) -> None:
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ModelFormatError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key and value heads"
            )
        if self.head_size < 2 or self.head_size % 2:
            raise ModelFormatError(f"head size {self.head_size} has no halves to rotate")
        if len(self.windows) != self.num_layers:
            raise ModelFormatError(f"{len(self.windows)} windows for {self.num_layers} layers")


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
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    fallback = _DEFAULT_QWEN3_HEAD if kind == "qwen3" else hidden // heads
    head_size = _size(config, "head_dim", fallback)
    context_length = _size(config, "max_position_embeddings")
    has_default_kv = kind == "llama" or "num_key_value_heads" in config
    return DecoderConfig(
        architecture=kind,
        num_layers=_size(config, "num_hidden_layers"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=_size(config, "num_key_value_heads", heads if has_default_kv else None),
        head_size=head_size,
        intermediate_size=_size(config, "intermediate_size"),
        vocab_size=_size(config, "vocab_size"),
        context_length=context_length,
        norm_epsilon=_float(config, "rms_norm_eps", 1e-6),
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
        raise _unsupported("model_type", kind, ", ".join(ARCHITECTURES))
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported("hidden_act", config["hidden_act"], "silu")
    if config.get("mlp_bias"):
        raise _unsupported("mlp_bias", config["mlp_bias"], "false")
    if config.get("quantization_config"):
        raise _unsupported("quantization_config", "as given", "none: save the model in floats")
    return str(kind)


def _json_rotary(config: Mapping[str, object], head_size: int, context_length: int) -> RotaryConfig:
    """The old `rope_scaling` and `rope_theta`, or the new `rope_parameters`."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    options: dict[str, object] = dict(given) if isinstance(given, Mapping) else {"type": given}
    if any(isinstance(value, Mapping) for value in options.values()):
        raise _unsupported("rope_parameters", "one a layer type", "one for all layers")
    for place in (config, options):
        if place.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
            value = place["partial_rotary_factor"]
            raise _unsupported("partial_rotary_factor", value, "1.0")
    if config.get("original_max_position_embeddings") is not None:
        length = config["original_max_position_embeddings"]
        options["original_max_position_embeddings"] = length
    theta = _float(options, "rope_theta", _float(config, "rope_theta", _DEFAULT_THETA))
    return scaled_rotary(theta, head_size, context_length, options)


def _json_windows(config: Mapping[str, object], kind: str) -> tuple[int | None, ...]:
    """The sliding window of each layer."""
    num_layers = _size(config, "num_hidden_layers")
    window, first = _json_window(config, kind), 0
    if kind in ("qwen2", "qwen3"):
        first = _size(config, "max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS, least=0)
    usual = [_FULL if window is None or layer < first else _SLIDING for layer in range(num_layers)]
    types = config.get("layer_types") or usual
    if not isinstance(types, list) or len(types) != num_layers:
        raise _unsupported("layer_types", types, f"a list of {num_layers}")
    known = (_FULL,) if window is None else (_FULL, _SLIDING)
    for type in types:
        # transformers reads the list for the Qwen families alone.
        if type not in (known if kind in ("qwen2", "qwen3") else usual[:1]):
            raise _unsupported("layer_types", type, " and ".join(known))
    return tuple(window if type == _SLIDING else None for type in types)


def _json_window(config: Mapping[str, object], kind: str) -> int | None:
    """The window of the layers that slide; None if there are none."""
    if kind == "llama" or (kind != "mistral" and not config.get("use_sliding_window")):
        return None
    # A window of null is none; one that is left out is the default of the family.
    is_null = config.get("sliding_window", 0) is None
    return None if is_null else _size(config, "sliding_window", _DEFAULT_WINDOW)


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
    if not all(isinstance(id, int) for id in found):
        raise ModelFormatError(f"eos_token_id is {ids!r}; it must be a token id or a list of them")
    return tuple(id for id in found if isinstance(id, int))


# --- GGUF -------------------------------------------------------------------------------------


def decoder_config_from_gguf(
    metadata: Mapping[str, object],
    vocab_size: int,
    tensor_names: Collection[str],
    rope_factors: Float[Tensor, " half_head"] | None = None,
) -> DecoderConfig:
    """Read the metadata of a GGUF file.

    Args:
        metadata: Keys and values, as `gguf.header.read_header` gives them.
        vocab_size: Rows of the embedding, where the metadata does not say.
        tensor_names: Of all tensors: they tell of biases, and whether the head is tied.
        rope_factors: The tensor `rope_freqs.weight`, which divides the frequencies; None if
            the file has none.

    Raises:
        ModelFormatError: If the model is of another kind, or uses a feature that the native
            decoders lack; the message names it.
    """
    kind, options = _check_gguf_keys(metadata)
    heads, hidden = _size(options, "attention.head_count"), _size(options, "embedding_length")
    head_size = _gguf_head_size(options, hidden // heads)
    context_length = _size(options, "context_length")
    return DecoderConfig(
        architecture=kind,
        num_layers=_size(options, "block_count"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=_size(options, "attention.head_count_kv", heads),
        head_size=head_size,
        intermediate_size=_size(options, "feed_forward_length"),
        vocab_size=_size(options, "vocab_size", vocab_size),
        context_length=context_length,
        norm_epsilon=_float(options, "attention.layer_norm_rms_epsilon"),
        rotary=_gguf_rotary(options, head_size, context_length, rope_factors),
        windows=_gguf_windows(options, kind),
        eos_token_ids=_gguf_eos(metadata),
        biases=_gguf_biases(kind, tensor_names),
        normalises_heads=kind == "qwen3",
        is_tied="output.weight" not in tensor_names,
    )


def _check_gguf_keys(metadata: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """The architecture, and its own keys without the prefix."""
    kind = metadata.get("general.architecture")
    if kind not in _GGUF_ARCHITECTURES:
        raise _unsupported("general.architecture", kind, ", ".join(_GGUF_ARCHITECTURES))
    prefix = f"{kind}."
    options = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    for key, value in options.items():
        if key not in _GGUF_KEYS:
            raise _unsupported(prefix + key, value, "models without it")
    if options.get("expert_count"):
        raise _unsupported(f"{prefix}expert_count", options["expert_count"], "0")
    return str(kind), options


def _gguf_head_size(options: Mapping[str, object], fallback: int) -> int:
    """All of a key's elements are rotated, and a value has as many."""
    head_size = _size(options, "attention.key_length", fallback)
    if "attention.key_length" not in options:
        head_size = _size(options, "rope.dimension_count", fallback)
    for key in ("rope.dimension_count", "attention.value_length"):
        if _size(options, key, head_size) != head_size:
            raise _unsupported(key, options[key], f"the head size, {head_size}")
    return head_size


def _gguf_rotary(
    options: Mapping[str, object],
    head_size: int,
    context_length: int,
    factors: Float[Tensor, " half_head"] | None,
) -> RotaryConfig:
    theta = _float(options, "rope.freq_base", _DEFAULT_THETA)
    kind = options.get("rope.scaling.type", "none")
    named = {
        "rope_type": "default" if kind == "none" else kind,
        "factor": options.get("rope.scaling.factor"),
        "original_max_position_embeddings": options.get("rope.scaling.original_context_length"),
    }
    rotary = scaled_rotary(theta, head_size, context_length, named)
    frequencies = rotary.inverse_frequencies
    if factors is not None:
        if factors.shape != frequencies.shape:
            raise ModelFormatError(
                f"rope_freqs.weight has shape {tuple(factors.shape)}, not {(head_size // 2,)}"
            )
        frequencies = frequencies / factors
    # llama.cpp multiplies this by yarn's own.
    scale = rotary.scale * _float(options, "rope.scaling.attn_factor", 1.0)
    return RotaryConfig(frequencies, scale)


def _gguf_windows(options: Mapping[str, object], kind: str) -> tuple[int | None, ...]:
    """One window for all layers; a file of the others does not say which layers have one."""
    window = options.get("attention.sliding_window") or None
    if window is not None and kind != "llama":
        raise _unsupported(f"{kind}.attention.sliding_window", window, "none")
    value = None if window is None else _size(options, "attention.sliding_window")
    return (value,) * _size(options, "block_count")


def _gguf_biases(kind: str, tensor_names: Collection[str]) -> tuple[str, ...]:
    """Those of the first layer: a file says nothing else of them."""
    if kind == "qwen2":
        return _QUERY_KEY_VALUE
    names = [f"blk.0.attn_{short}.bias" for short in ("q", "k", "v", "output")]
    pairs = zip(_ALL_OF_ATTENTION, names, strict=True)
    return tuple(part for part, name in pairs if name in tensor_names)


def _gguf_eos(metadata: Mapping[str, object]) -> tuple[int, ...]:
    value = metadata.get("tokenizer.ggml.eos_token_id")
    return (value,) if isinstance(value, int) else ()


# --- both -------------------------------------------------------------------------------------


def _size(
    options: Mapping[str, object], key: str, default: int | None = None, *, least: int = 1
) -> int:
    """A whole number; the default stands for one not given, or null."""
    value = options.get(key)
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]  # one a layer, all the same
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelFormatError(
            f"the config has {key} {value!r}; it must be a whole number from {least}"
        )
    return value


def _float(options: Mapping[str, object], key: str, default: float | None = None) -> float:
    value = options.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ModelFormatError(f"the config has {key} {value!r}; it must be a number above 0")
    return float(value)


def _unsupported(name: str, value: object, known: str) -> ModelFormatError:
    return ModelFormatError(f"{name} is {value!r}, which no native decoder has, only {known}")
