"""The keys of a head's config.json: those that are read, those that change nothing, no others."""

from collections.abc import Collection, Mapping
from typing import Final

from draftsmith.drafters.heads.whole_numbers import QUANTIZATION
from draftsmith.errors import ModelFormatError

__all__ = [
    "CONSTANTS",
    "WITHOUT_EFFECT",
    "architectures_of",
    "check_keys",
    "check_part",
    "layer_keys",
    "part_of",
    "rope_keys",
    "verifier_of",
]

_LAYER = "transformer_layer_config"
_READ: Final = frozenset(
    (
        "aux_hidden_state_layer_ids",
        "architectures",
        "draft_vocab_size",
        "eagle_aux_hidden_state_layer_ids",
        "eagle_config",
        "fc_norm",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "norm_before_fc",
        "norm_before_residual",
        "norm_output",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "speculators_config",
        "speculators_model_type",
        "target_hidden_size",
        "target_layer_ids",
        "vocab_size",
    )
)
CONSTANTS: Final[dict[str, tuple[object, ...]]] = {
    "attention_bias": (False, None),
    "embed_requires_grad": (True, False, None),
    "hidden_act": ("silu", None),
    "mlp_bias": (False, None),
    "parallel_drafting": (False, None),
    "quantization_config": (QUANTIZATION, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
}
"""Keys that may be there with these values alone."""
WITHOUT_EFFECT: Final = frozenset(
    (
        "_name_or_path",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "has_no_defaults_at_init",
        "initializer_range",
        "layer_types",
        "max_window_layers",
        "mlp_dropout",
        "model_type",
        "modeltype",
        "num_hidden_layers",
        "num_target_layers",
        "pad_token_id",
        "pretraining_tp",
        "speculators_version",
        "target_model_type",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)
"""`num_hidden_layers` is the draft's own number, which the tensors tell; `tie_word_embeddings` is
the target's, and the tensors tell that, too."""
_EAGLE: Final = frozenset(
    (
        "aux_hidden_state_layer_ids",
        "eagle_aux_hidden_state_layer_ids",
        "use_aux_hidden_state",
    )
)


def layer_keys(config: Mapping[str, object]) -> Mapping[str, object]:
    """Where the sizes stand: speculators keeps them in a part of their own.

    Args:
        config: The whole.

    Returns:
        The part.
    """
    part = config.get(_LAYER)
    return part if isinstance(part, Mapping) else config


def part_of(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object within a config.json; empty where it is not there.

    Args:
        config: Or a part of it.
        key: Of the object.

    Raises:
        ModelFormatError: It is no object.
    """
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise ModelFormatError(f"{key} is {value!r:.60}, no JSON object; fetch it again")
    return value


def architectures_of(config: Mapping[str, object]) -> list[str]:
    """The classes that a config.json names."""
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def verifier_of(config: Mapping[str, object]) -> str | None:
    """The target that a speculators' config.json names."""
    name = part_of(part_of(config, "speculators_config"), "verifier").get("name_or_path")
    return str(name) if name else None


def rope_keys(layer: Mapping[str, object]) -> dict[str, object]:
    """What the two keys of rotary positions say together.

    Args:
        layer: As `layer_keys` gives it.

    Raises:
        ModelFormatError: They contradict each other, or one is no object.
    """
    found: dict[str, object] = {}
    for key in ("rope_parameters", "rope_scaling"):
        for name, value in part_of(layer, key).items():
            if found.setdefault(str(name), value) != value:
                raise ModelFormatError(
                    f"rope_parameters and rope_scaling say {name} is {found[str(name)]!r:.60} and "
                    f"{value!r:.60}: take one out"
                )
    return found


def check_keys(config: Mapping[str, object]) -> None:
    """Refuse what is not known: it could change what the head computes.

    Args:
        config: The parsed file.

    Raises:
        ModelFormatError: With the key, its value and the remedy.
    """
    known = _READ | WITHOUT_EFFECT | {_LAYER}
    check_part(config, known)
    layer = layer_keys(config)
    if layer is not config:
        check_part(layer, known, f"{_LAYER}.")
    eagle = config.get("eagle_config")
    if isinstance(eagle, Mapping):
        check_part(eagle, _EAGLE, "eagle_config.")


def check_part(
    part: Mapping[str, object],
    known: Collection[str],
    prefix: str = "",
    constants: Mapping[str, Collection[object]] = CONSTANTS,
) -> None:
    """Refuse keys of a part of a config.json that are not known.

    Args:
        part: The keys and their values.
        known: Keys that may have any value.
        prefix: Where the part stands, for messages.
        constants: Keys that may be there with some values alone, the usual one first.

    Raises:
        ModelFormatError: With the key, its value and the remedy.
    """
    for key, value in part.items():
        if key in constants:
            if value not in constants[key]:
                raise ModelFormatError(
                    f"{prefix}{key} is {value!r:.60}: of heads, only "
                    f"{next(iter(constants[key]))!r} is known there"
                )
        elif key not in known:
            raise ModelFormatError(
                f"config.json has the key {prefix}{key} ({value!r:.60}), which is not known here: "
                "take it out if it changes nothing"
            )
