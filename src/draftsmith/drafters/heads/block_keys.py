"""The keys of a block head's config.json that are read, and those that change nothing.

Publishers keep the keys of the block at the top, in `dflash_config` or in `dspark_config`. What
stands in several of these places must say the same.
"""

from collections.abc import Mapping
from typing import Final

from draftsmith.drafters.heads.keys import (
    CONSTANTS,
    LAYER_KEYS,
    WITHOUT_EFFECT,
    check_both,
    check_part,
    check_speculators,
    check_types,
    layer_keys,
    part_of,
)
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.config import size_option

__all__ = ["PARTS", "check_block_keys", "told"]

PARTS: Final = ("dflash_config", "dspark_config")
_BLOCK: Final = frozenset(
    (
        "aux_hidden_state_layer_ids",
        "block_size",
        "causal",
        "confidence_head_with_markov",
        "dspark_bonus_anchor",
        "eagle_aux_hidden_state_layer_ids",
        "enable_confidence_head",
        "is_causal",
        "markov_head_type",
        "markov_rank",
        "mask_token_id",
        "num_target_layers",
        "projector_type",
        "sample_from_anchor",
        "target_layer_ids",
    )
)
_TOP: Final = frozenset(
    (
        *PARTS,
        "draft_vocab_size",
        "speculators_config",
        "speculators_model_type",
        "target_hidden_size",
        "transformer_layer_config",
    )
)
_LAYER: Final = LAYER_KEYS | {"sliding_window"}
_CONSTANTS: Final[dict[str, tuple[object, ...]]] = {
    **{key: values for key, values in CONSTANTS.items() if key != "sliding_window"},
    "attention_mode": ("gqa", None),
    "aux_hidden_state_layer_offset": (0, None),
    "attention_sink_bias": (False, None),
    "dflash_query_causal": (False, None),
    "dspark_backbone_conv_enabled": (False, None),
    "enable_qwen35_gated_q_proj": (False, None),
    "final_logit_softcapping": (None, 0),
    "input_embedding_scale": (1.0, None),
    "is_neox_style": (True, None),
    "log_snr_conditioning": (False, None),
    "output_multiplier": (1.0, None),
    "partial_rotary_factor": (1.0, None),
    "shift_label": (False, None),
    "use_aux_hidden_state": (True, None),
    "use_swa": (False, None),
}
"""Keys that may be there with these values alone."""
_WITHOUT_EFFECT: Final = frozenset(
    (
        # Of a training.
        "auf",
        "ce_loss_alpha",
        "confidence_head_alpha",
        "d2_prefix_weight_base",
        "enable_d2_feature",
        "l1_loss_alpha",
        "lambda_base_decay_ratio",
        "lambda_base_start",
        "loss_decay_gamma",
        "max_anchors",
        "num_anchors",
        # Of Domino, whose projector_type is refused.
        "emb_dim",
        "gru_hidden_dim",
        "pure_draft_prefix_len",
        # Of windows, which are refused.
        "sliding_window_non_causal",
        "swa_window_size",
        # How another program computes the same.
        "_attn_implementation",
        "attn_implementation",
    )
)


def told(config: Mapping[str, object], key: str) -> object:
    """What a config says of a block, wherever that stands; None where it says nothing.

    Args:
        config: The whole.
        key: Of the block.

    Raises:
        ModelFormatError: Two places contradict each other.
    """
    places = {"": config} | {f"{name}.": part_of(config, name) for name in PARTS}
    found = {f"{at}{key}": part[key] for at, part in places.items() if part.get(key) is not None}
    if not found:
        return None
    (first, value), *others = found.items()
    for name, other in others:
        if other != value:
            raise ModelFormatError(
                f"{first} is {value!r:.60} and {name} {other!r:.60}: they contradict each other"
            )
    return value


def check_block_keys(config: Mapping[str, object]) -> None:
    """Refuse what is not known: it could change what the head computes.

    Args:
        config: The parsed file.

    Raises:
        ModelFormatError: With the key, its value and the remedy.
    """
    layer, idle = layer_keys(config), _WITHOUT_EFFECT | WITHOUT_EFFECT
    everywhere = _TOP | _LAYER | _BLOCK
    check_part(config, everywhere | idle, constants=_CONSTANTS)
    if layer is not config:
        prefix = "transformer_layer_config."
        check_part(layer, _LAYER | idle, prefix, _CONSTANTS, everywhere)
        check_both(config, layer)
    for name in PARTS:
        check_part(part_of(config, name), _BLOCK | idle, f"{name}.", _CONSTANTS, everywhere)
    for part in (config, layer):
        check_types(part)
        _check_windows(part)
    check_speculators(config)


def _check_windows(part: Mapping[str, object]) -> None:
    if part.get("sliding_window") is None:
        return
    size_option(part, "sliding_window")
    if not part.get("layer_types"):
        raise ModelFormatError(
            f"sliding_window is {part['sliding_window']!r:.60} and no layer_types say where: of "
            "heads, only full attention is known"
        )
