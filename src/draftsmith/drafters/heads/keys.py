"""The keys of a head's config.json: those that are read, where they are read, and no others.

A key that stands where nobody reads it would be passed over, so it is refused like an unknown one.
"""

from collections.abc import Collection, Mapping
from typing import Final

from draftsmith.drafters.heads.whole_numbers import QUANTIZATION
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.rotary import SCALINGS

__all__ = [
    "CONSTANTS",
    "LAYER_KEYS",
    "WITHOUT_EFFECT",
    "architectures_of",
    "check_both",
    "check_keys",
    "check_part",
    "check_speculators",
    "check_types",
    "layer_keys",
    "part_of",
    "rope_keys",
    "verifier_of",
]

_LAYER = "transformer_layer_config"
LAYER_KEYS: Final = frozenset(
    (
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "vocab_size",
    )
)
"""Of a decoder's layers: in `transformer_layer_config` where that is there, else at the top."""
_TOP: Final = frozenset(
    (
        "aux_hidden_state_layer_ids",
        "draft_vocab_size",
        "eagle_aux_hidden_state_layer_ids",
        "eagle_config",
        "fc_norm",
        "norm_before_fc",
        "norm_before_residual",
        "norm_output",
        "num_target_layers",
        "speculators_config",
        "speculators_model_type",
        "target_hidden_size",
        "target_layer_ids",
        _LAYER,
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
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "has_no_defaults_at_init",
        "initializer_range",
        "max_window_layers",
        "mlp_dropout",
        "model_type",
        "modeltype",
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
"""Wherever they stand. `architectures` are read at the top, and are others' in a part;
`tie_word_embeddings` is the target's, and the tensors tell it."""
_EAGLE: Final = frozenset(
    (
        "aux_hidden_state_layer_ids",
        "eagle_aux_hidden_state_layer_ids",
        "use_aux_hidden_state",
    )
)
_SPECULATORS: Final = frozenset(
    ("algorithm", "default_proposal_method", "proposal_methods", "verifier")
)
"""How other programs are to draft with it, and for whom."""
_VERIFIER: Final = frozenset(
    (
        "architectures",
        "bos_token_id",
        "eos_token_id",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "name_or_path",
        "vocab_size",
    )
)
"""Of the target, whose own files say them."""
_ROPE: Final[dict[str, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "high_freq_factor",
        "low_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": (
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "factor",
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "truncate",
    ),
}
"""What each way to stretch positions reads."""


def layer_keys(config: Mapping[str, object]) -> Mapping[str, object]:
    """Where the sizes stand: speculators keeps them in a part of their own.

    Args:
        config: The whole.

    Returns:
        The part; the whole where there is none.

    Raises:
        ModelFormatError: It is no object.
    """
    return config if config.get(_LAYER) is None else part_of(config, _LAYER)


def part_of(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object within a config.json; empty where it is not there.

    Args:
        config: Or a part of it.
        key: Of the object.

    Raises:
        ModelFormatError: It is no object.
    """
    value = config.get(key)
    if value is None:
        return {}
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
        ModelFormatError: They contradict each other, one is no object, or the scaling that they
            name does not read what they say.
    """
    found: dict[str, object] = {}
    for key in ("rope_parameters", "rope_scaling"):
        for name, value in part_of(layer, key).items():
            if found.setdefault(str(name), value) != value:
                raise ModelFormatError(
                    f"rope_parameters and rope_scaling say {name} is {found[str(name)]!r:.60} and "
                    f"{value!r:.60}: take one out"
                )
    _check_rope(found)
    return found


def _check_rope(found: Mapping[str, object]) -> None:
    kinds = [found[key] for key in ("rope_type", "type") if found.get(key) is not None]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        raise ModelFormatError(
            f"rope_type is {kinds[0]!r:.60} and type {kinds[1]!r:.60}: take one out"
        )
    kind = kinds[0] if kinds else "default"
    if kind not in SCALINGS:
        return  # whoever computes the frequencies says so
    known = {"rope_theta", "rope_type", "type", *_ROPE[str(kind)]}
    for key, value in found.items():
        is_usual = value is None or (key == "partial_rotary_factor" and value == 1)
        if key not in known and not is_usual:
            raise ModelFormatError(
                f"the rotary positions have {key} {value!r:.60}, which the scaling {kind} does not "
                "read: take it out if it changes nothing"
            )


def check_keys(config: Mapping[str, object]) -> None:
    """Refuse what is not known where it stands: it could change what the head computes.

    Args:
        config: The parsed file.

    Raises:
        ModelFormatError: With the key, its value and the remedy.
    """
    layer = layer_keys(config)
    everywhere = _TOP | LAYER_KEYS | _EAGLE
    check_part(config, _TOP | LAYER_KEYS | WITHOUT_EFFECT, elsewhere=everywhere)
    if layer is not config:
        check_part(layer, LAYER_KEYS | WITHOUT_EFFECT, f"{_LAYER}.", elsewhere=everywhere)
        check_both(config, layer)
    eagle = part_of(config, "eagle_config")
    check_part(eagle, _EAGLE, "eagle_config.", elsewhere=everywhere)
    if eagle.get("use_aux_hidden_state") not in (True, None):
        raise ModelFormatError(
            f"eagle_config.use_aux_hidden_state is {eagle['use_aux_hidden_state']!r:.60}, and a "
            "head without these states is EAGLE-1: give an EAGLE-3 head"
        )
    for part in (config, layer):
        check_types(part)
    check_speculators(config)


def check_both(config: Mapping[str, object], layer: Mapping[str, object]) -> None:
    """Refuse keys of layers at the top that say other than those of the part.

    Args:
        config: The whole.
        layer: As `layer_keys` gives it, which is not the whole.

    Raises:
        ModelFormatError: With the key and both values.
    """
    # Types of layers and windows are looked at in both places.
    for key in sorted(LAYER_KEYS - {"layer_types"}):
        value = config.get(key)
        if value is not None and value != layer.get(key):
            raise ModelFormatError(
                f"{key} is {value!r:.60} at the top and {layer.get(key)!r:.60} in {_LAYER}, where "
                "it is read: take one out"
            )


def check_types(part: Mapping[str, object]) -> None:
    """Refuse layers that do not see everything before them.

    Args:
        part: With or without `layer_types`.

    Raises:
        ModelFormatError: One is of another type, or they are no list.
    """
    types = part.get("layer_types")
    listed = types if isinstance(types, list) else []
    odd = [one for one in listed if one != "full_attention"]
    if odd or (types is not None and not listed):
        raise ModelFormatError(
            f"layer_types is {odd or types!r:.60}: of heads, only full_attention is known there"
        )


def check_speculators(config: Mapping[str, object]) -> None:
    """Refuse keys of a head that stand among those of its use by other programs.

    Args:
        config: The whole.

    Raises:
        ModelFormatError: With the key, its value and the remedy.
    """
    part = part_of(config, "speculators_config")
    check_part(part, _SPECULATORS, "speculators_config.", {})
    check_part(part_of(part, "verifier"), _VERIFIER, "speculators_config.verifier.", {})


def check_part(
    part: Mapping[str, object],
    known: Collection[str],
    prefix: str = "",
    constants: Mapping[str, Collection[object]] = CONSTANTS,
    elsewhere: Collection[str] = (),
) -> None:
    """Refuse keys of a part of a config.json that are not known there.

    Args:
        part: The keys and their values.
        known: Keys that may have any value.
        prefix: Where the part stands, for messages.
        constants: Keys that may be there with some values alone, the usual one first.
        elsewhere: Keys that other parts have; here null alone, which says nothing.

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
        elif key in known or (key in elsewhere and value is None):
            continue
        elif key in elsewhere:
            raise ModelFormatError(
                f"config.json has the key {prefix}{key} ({value!r:.60}), which is read in another "
                f"part of it and not {'there' if prefix else 'at the top'}: move it"
            )
        else:
            raise ModelFormatError(
                f"config.json has the key {prefix}{key} ({value!r:.60}), which is not known here: "
                "take it out if it changes nothing"
            )
