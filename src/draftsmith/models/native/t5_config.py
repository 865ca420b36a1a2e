"""The shape of a T5, from `config.json` and `generation_config.json`.

v1.0 (Raffel et al., arXiv:1910.10683) has relu and, tied to the embedding, a scaled output; v1.1
and mT5 have gated GELU and an output of their own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.bounds import named_after

__all__ = ["T5Config", "native_t5_architecture", "parse_t5_config", "read_t5_config"]

_MOST_DISTANCE = 1 << 20
"""A table of so many biases is made; T5s have 128."""
_FAMILIES = ("t5", "mt5")
_IS_GATED = {"relu": False, "gated-gelu": True}
_ACTIVATION = {"relu": "relu", "gated-gelu": "gelu_new"}
_DEFAULT_FEED_FORWARD = {"t5": "relu", "mt5": "gated-gelu"}
# The second is how the first T5s were saved.
_HEADS = ("ForConditionalGeneration", "WithLMHeadModel")


@dataclass(frozen=True)
class T5Config:
    """What the models of the T5 family differ in."""

    vocab_size: int
    hidden_size: int
    num_heads: int
    head_size: int
    """Need not be hidden_size / num_heads."""
    intermediate_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    num_buckets: int
    """Of relative positions: one bias a head and bucket."""
    max_distance: int
    """From here on, all distances share the last bucket."""
    norm_epsilon: float
    is_gated: bool
    """Gated GELU (its tanh form) rather than relu."""
    output_scale: float
    """Multiplies the last hidden state before the head."""
    eos_token_ids: tuple[int, ...]
    decoder_start_token_id: int

    def __post_init__(self) -> None:
        if self.num_buckets < 4:
            raise ModelFormatError(
                f"relative_attention_num_buckets must be at least 4, got {self.num_buckets}"
            )
        if self.max_distance > _MOST_DISTANCE:
            raise ModelFormatError(
                f"relative_attention_max_distance must be at most {_MOST_DISTANCE}, "
                f"got {self.max_distance}"
            )
        if self.max_distance <= self.num_buckets // 2:
            raise ModelFormatError(
                "relative_attention_max_distance must exceed half of the "
                f"{self.num_buckets} buckets, got {self.max_distance}"
            )
        if not 0 <= self.decoder_start_token_id < self.vocab_size:
            raise ModelFormatError(
                f"decoder_start_token_id must be below the vocab_size of {self.vocab_size}, "
                f"got {self.decoder_start_token_id}"
            )

    @property
    def inner_size(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.head_size


def native_t5_architecture(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` is of a T5 that `read_t5` can run.

    Args:
        config: The parsed file.
    """
    return not _objection(config)


def read_t5_config(folder: Path) -> T5Config:
    """Read the configuration of a model's folder.

    Raises:
        ModelFormatError: A file is missing or malformed, or an option is not supported; the
            message names the folder and the option.
    """
    generation = folder / "generation_config.json"
    with named_after(folder):
        return parse_t5_config(
            _read_json(folder / "config.json"),
            _read_json(generation) if generation.is_file() else {},
        )


def parse_t5_config(config: Mapping[str, object], generation: Mapping[str, object]) -> T5Config:
    """Make a configuration of the two parsed files.

    Args:
        config: `config.json`.
        generation: `generation_config.json`, whose token ids come first; empty if there is none.

    Raises:
        ModelFormatError: An option is missing, malformed or not supported.
    """
    if objection := _objection(config):
        raise ModelFormatError(objection)
    num_layers = _count(config, "num_layers")
    hidden_size = _count(config, "d_model")
    return T5Config(
        vocab_size=_count(config, "vocab_size"),
        hidden_size=hidden_size,
        num_heads=_count(config, "num_heads"),
        head_size=_count(config, "d_kv"),
        intermediate_size=_count(config, "d_ff"),
        num_encoder_layers=num_layers,
        num_decoder_layers=_count(config, "num_decoder_layers", num_layers),
        num_buckets=_count(config, "relative_attention_num_buckets", 32),
        max_distance=_count(config, "relative_attention_max_distance", 128),
        norm_epsilon=_epsilon(config),
        is_gated=_IS_GATED[_feed_forward(config)],
        output_scale=hidden_size**-0.5 if _is_scaled(config) else 1.0,
        eos_token_ids=_eos_token_ids(config, generation),
        decoder_start_token_id=_decoder_start(config, generation),
    )


# --- what is not supported --------------------------------------------------------------------


def _objection(config: Mapping[str, object]) -> str:
    """Why the model cannot run here, with the value; empty if it can."""
    family = config.get("model_type")
    if family not in _FAMILIES:
        return f"model_type {family!r} is not supported; it must be {' or '.join(_FAMILIES)}"
    architectures = config.get("architectures") or [_HEADS[0]]
    if not isinstance(architectures, list) or not str(architectures[0]).endswith(_HEADS):
        return f"architectures {architectures!r} is not supported; give a model that generates"
    feed_forward = _feed_forward(config)
    if feed_forward not in _ACTIVATION:
        names = " or ".join(_ACTIVATION)
        return f"feed_forward_proj {feed_forward!r} is not supported; it must be {names}"
    activation = config.get("dense_act_fn", _ACTIVATION[feed_forward])
    if activation != _ACTIVATION[feed_forward]:
        return f"dense_act_fn {activation!r} is not supported with {feed_forward}"
    if "AutoModelForSeq2SeqLM" in str(config.get("auto_map")):
        return "auto_map is not supported; it names code of the model's own"
    if config.get("quantization_config") is not None:
        return "quantization_config is not supported; give the model that it was made from"
    return ""


def _feed_forward(config: Mapping[str, object]) -> str:
    return str(config.get("feed_forward_proj", _DEFAULT_FEED_FORWARD[str(config["model_type"])]))


def _is_scaled(config: Mapping[str, object]) -> bool:
    """v1.0 scales; files tell it from v1.1 by the tie, or by a name of its own."""
    if config["model_type"] == "mt5":
        return False
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    return bool(scaled)


# --- values -----------------------------------------------------------------------------------


def _count(config: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelFormatError(f"{key} must be a positive integer, got {value!r}")
    return value


def _epsilon(config: Mapping[str, object]) -> float:
    value = config.get("layer_norm_epsilon", 1e-6)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ModelFormatError(f"layer_norm_epsilon must be between 0 and 1, got {value!r}")
    return float(value)


def _eos_token_ids(
    config: Mapping[str, object], generation: Mapping[str, object]
) -> tuple[int, ...]:
    value = generation.get("eos_token_id")
    value = config.get("eos_token_id", 1) if value is None else value
    ids: list[object] = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(one, bool) or not isinstance(one, int) for one in ids):
        raise ModelFormatError(f"eos_token_id must be an integer or a list of them, got {value!r}")
    # -1 stands for none.
    return tuple(one for one in ids if isinstance(one, int) and one >= 0)


def _decoder_start(config: Mapping[str, object], generation: Mapping[str, object]) -> int:
    value = generation.get("decoder_start_token_id")
    value = config.get("decoder_start_token_id") if value is None else value
    if value is None and config["model_type"] == "mt5":
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelFormatError(f"decoder_start_token_id must be set in config.json, got {value!r}")
    return value


def _read_json(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFormatError(f"{path.name} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path.name} is not JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path.name} is not a JSON object; fetch it again")
    return value
