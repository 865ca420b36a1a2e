"""EAGLE-3 heads as published: conventions resolved to one `HeadConfig`, or refused by name.

The same key means other things in other layouts; what is decided here is written out in
`HeadConfig.described`. Ids of layers become boundaries of the target (see `config.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from draftsmith.drafters.heads.config import FeatureNorm, HeadConfig
from draftsmith.drafters.heads.counts import check_counts, check_layers
from draftsmith.drafters.heads.files import read_config, read_tensors
from draftsmith.drafters.heads.keys import (
    architectures_of,
    check_keys,
    layer_keys,
    part_of,
    rope_keys,
    verifier_of,
)
from draftsmith.drafters.heads.names import drafted_ids, our_names
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import number_option, size_option

__all__ = ["ARCHITECTURES", "read_eagle3", "resolved_head"]

ARCHITECTURES: Final = {
    "LlamaForCausalLMEagle3",
    "Eagle3LlamaForCausalLM",
    "Eagle3Speculator",
    "Eagle3DraftModel",
    "Qwen3Eagle3Model",
}
_TOP_IDS = ("eagle_aux_hidden_state_layer_ids", "aux_hidden_state_layer_ids")
_LATER_IDS = "target_layer_ids"


def read_eagle3(folder: Path, target: TargetTables | None) -> tuple[HeadConfig, HeadWeights]:
    """Read an EAGLE-3 head for a target, in whatever layout it is.

    Args:
        folder: With a config.json and the weights.
        target: Whose layers and width fill in what the files leave to convention; None reads a
            head that leaves nothing to it.

    Returns:
        Its conventions, all of them, and its weights, checked against each other.

    Raises:
        ModelFormatError: It is of another kind, cut off, or says something that is not known here.
        InvalidRequestError: The target is None, and the files leave something to it.
    """
    with named_after(folder):
        config = read_config(folder)
        _check_kind(config)
        return resolved_head(config, read_tensors(folder), target, folder)


def resolved_head(
    config: Mapping[str, object],
    stored: Mapping[str, Tensor],
    target: TargetTables | None,
    folder: Path,
) -> tuple[HeadConfig, HeadWeights]:
    """What a head's keys and tensors come to, whatever architecture the files name.

    Args:
        config: Its config.json.
        stored: Its tensors, as the files name them.
        target: As `read_eagle3` takes it.
        folder: For messages.

    Returns:
        Its conventions and its weights, checked against each other.

    Raises:
        ModelFormatError: Something is missing, contradicts itself, or is not known here.
        InvalidRequestError: The target is None, and the files leave something to it.
    """
    check_keys(config)
    tensors, is_middle = our_names(stored, folder)
    check_counts(tensors, config, layer_keys(config))
    check_layers(config.get("num_target_layers"), target)
    resolved = _resolve(config, tensors, target, is_middle=is_middle)
    ids = drafted_ids(stored, resolved.vocab_size, resolved.target_vocab_size, folder)
    weights = HeadWeights(tensors, ids)
    weights.check(resolved)
    return resolved, weights


def _check_kind(config: Mapping[str, object]) -> None:
    kind = config.get("speculators_model_type", "eagle3")
    if kind != "eagle3":
        raise ModelFormatError(f"speculators_model_type is {kind!r}: of heads, eagle3 is known")
    names = architectures_of(config)
    plain = {"LlamaForCausalLM", "Qwen3ForCausalLM"} if "draft_vocab_size" in config else set()
    if names and not ARCHITECTURES.union(plain).intersection(names):
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelFormatError(f"architectures is {names[0]!r}: of heads, {known} are known")


# --- conventions --------------------------------------------------------------------------------


def _resolve(
    config: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    target: TargetTables | None,
    *,
    is_middle: bool,
) -> HeadConfig:
    layer = layer_keys(config)
    hidden, heads = size_option(layer, "hidden_size"), size_option(layer, "num_attention_heads")
    is_told = config.get("target_hidden_size") is not None
    target_width = (
        size_option(config, "target_hidden_size") if is_told else _given(target).hidden_size
    )
    num_states = _num_states(tensors, target_width)
    boundaries = _boundaries(config, num_states, target)
    vocab = size_option(layer, "vocab_size")
    rope = rope_keys(layer)
    theta = number_option(rope, "rope_theta", number_option(layer, "rope_theta", 10_000.0))
    return HeadConfig(
        boundaries=boundaries,
        target_hidden_size=target_width,
        target_vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=size_option(layer, "intermediate_size"),
        num_layers=_num_layers(layer, tensors),
        num_heads=heads,
        num_kv_heads=size_option(layer, "num_key_value_heads", heads),
        head_size=size_option(layer, "head_dim", hidden // heads),
        vocab_size=size_option(config, "draft_vocab_size", vocab),
        norm_epsilon=number_option(layer, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=tuple((k, v) for k, v in rope.items() if k != "rope_theta"),
        context_length=size_option(layer, "max_position_embeddings", 2048),
        norm_before_residual=_residual(config),
        feeds_back_normed=_fed_back(config, is_middle=is_middle),
        feature_norm=_feature_norm(config, tensors),
        normalises_heads="layers.0.query_norm" in tensors,
        has_embedding="embedding" in tensors,
        has_head="head" in tensors,
        layout=_layout(config, is_middle=is_middle),
        target=verifier_of(config),
    )


def _layout(config: Mapping[str, object], *, is_middle: bool) -> str:
    if "speculators_model_type" in config:
        return "speculators"
    if "Qwen3Eagle3Model" in architectures_of(config):
        return "DeepSpec"
    if is_middle:
        return "SpecForge" if "eagle_config" in config else "SafeAI"
    return "ModelOpt" if "eagle_config" in config else "layers.0"


def _num_layers(layer: Mapping[str, object], tensors: Mapping[str, Tensor]) -> int:
    found = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    told = size_option(layer, "num_hidden_layers", max(1, found))
    if told != max(1, found):
        raise ModelFormatError(
            f"num_hidden_layers is {told}, and the tensors are those of {found}: fetch it again"
        )
    return told


def _num_states(tensors: Mapping[str, Tensor], target_width: int) -> int:
    if "fc" not in tensors:
        raise ModelFormatError("it holds no fc.weight: the file is cut off, or no EAGLE-3 head")
    inputs = tensors["fc"].shape[-1]
    if inputs % target_width:
        raise ModelFormatError(
            f"fc.weight reads {inputs} numbers, which are no whole states of {target_width}: "
            "it is another target's head"
        )
    return inputs // target_width


def _given(target: TargetTables | None) -> TargetTables:
    if target is None:
        raise InvalidRequestError(
            "the head's files leave layers or widths to its target: give --target, too"
        )
    return target


def _boundaries(
    config: Mapping[str, object], num_states: int, target: TargetTables | None
) -> tuple[int, ...]:
    """The ids of layers, wherever they stand, as boundaries."""
    nested = part_of(config, "eagle_config")
    places = [
        *((config.get(key), key, 0) for key in _TOP_IDS),
        *((nested.get(key), f"eagle_config.{key}", 1) for key in _TOP_IDS),
        (config.get(_LATER_IDS), _LATER_IDS, 1),
    ]
    told = {
        where: _shifted(_ids(value, where), shift, target)
        for value, where, shift in places
        if value is not None
    }
    if not told:
        # What SafeAI's code, SpecForge's default and vLLM all come to.
        num_layers = _given(target).num_layers
        boundaries = (2, num_layers // 2, num_layers - 3)
        where = "no key gives the target's layers, and the usual ones are three"
    else:
        (where, boundaries), *others = told.items()
        for other, found in others:
            if found != boundaries:
                raise ModelFormatError(
                    f"{where} and {other} name other layers: states behind layers "
                    f"{list(boundaries)!r:.60} and {list(found)!r:.60}"
                )
    if len(boundaries) != num_states:
        raise ModelFormatError(
            f"fc.weight reads {num_states} states of the target and {where}: "
            f"{len(boundaries)} are told; it is cut off, or of a kind that is not known here"
        )
    return boundaries


def _shifted(ids: list[int], shift: int, target: TargetTables | None) -> tuple[int, ...]:
    # One vendor writes boundaries there: an id of N can be nothing else.
    if shift and max(ids, default=0) == _given(target).num_layers:
        shift = 0
    return tuple(one + shift for one in ids)


def _ids(value: object, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(one) is int and one >= -1 for one in value):
        raise ModelFormatError(f"{where} is {value!r:.60}; it must be a list of layers")
    return value


def _residual(config: Mapping[str, object]) -> bool:
    value = config.get("norm_before_residual")
    # Of P-EAGLE's all readers take the raw feature.
    if value is None and config.get("speculators_model_type") == "eagle3":
        raise ModelFormatError(
            "config.json has no norm_before_residual, which readers of speculators' heads take for "
            "true or for false: write what the head was trained with into it"
        )
    return _flag("norm_before_residual", value, default=False)


def _fed_back(config: Mapping[str, object], *, is_middle: bool) -> bool:
    value = _flag("norm_output", config.get("norm_output"), default=is_middle)
    if not is_middle:
        return value
    # There the key is about the logits alone; what is fed back stays raw.
    if not value:
        raise ModelFormatError("norm_output is false: a head without its final norm is not known")
    return False


def _feature_norm(config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> FeatureNorm:
    found: FeatureNorm = (
        "joint" if "input_norm" in tensors else "each" if "fc_norm.0" in tensors else "none"
    )
    for key, kind in (("norm_before_fc", "joint"), ("fc_norm", "each")):
        value = config.get(key)
        if value is not None and _flag(key, value, default=False) != (found == kind):
            raise ModelFormatError(
                f"{key} is {value!r}, and the tensors are those of "
                f"{'no norm' if found == 'none' else 'a norm'} before fc: fetch it again"
            )
    return found


def _flag(key: str, value: object, *, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ModelFormatError(f"{key} is {value!r:.60}; it must be true or false")
    return value
