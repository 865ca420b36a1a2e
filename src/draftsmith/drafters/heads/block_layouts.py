"""Published block heads: every layout's conventions resolved to one `BlockConfig`, or refused.

Layouts of z-lab (DFlash), SpecForge, DeepSpec and speculators. The same key means other things in
other layouts; what is decided here is written out in `BlockConfig.described`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig, MarkovKind
from draftsmith.drafters.heads.block_keys import PARTS, check_block_keys, told
from draftsmith.drafters.heads.block_names import our_block_names
from draftsmith.drafters.heads.block_weights import check_block
from draftsmith.drafters.heads.counts import check_counts, check_layers
from draftsmith.drafters.heads.files import read_config, read_tensors
from draftsmith.drafters.heads.keys import architectures_of, layer_keys, rope_keys, verifier_of
from draftsmith.drafters.heads.names import drafted_ids
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import number_option, size_option

__all__ = ["MASK_FILE", "claims_block", "read_block"]

_KINDS = ("DFlash", "DSpark", "Domino")
_ARCHITECTURES = ("DFlashDraftModel", "DSparkDraftModel", "Qwen3DSparkModel")
_SPECULATORS = ("dflash", "dspark")
_PROJECTORS = ("dflash", "dspark")
_BOUNDARIES = ("aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids")
_LATER_IDS = "target_layer_ids"
MASK_FILE = "mask_embedding.pt"
"""Beside some heads; one that has it is refused."""


def claims_block(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a head that drafts a block; one of another kind is refused.

    Example:
        >>> claims_block({"architectures": ["DFlashDraftModel"]})
        True
    """
    # An empty part says nothing, not even that it is a head.
    is_marked = any(isinstance(part := config.get(name), Mapping) and part for name in PARTS)
    kind = str(config.get("speculators_model_type", ""))
    is_speculators = kind.startswith(_SPECULATORS) or kind == "domino"
    return (
        is_marked
        or is_speculators
        or any(one in name for name in architectures_of(config) for one in _KINDS)
    )


def read_block(folder: Path, target: TargetTables | None) -> tuple[BlockConfig, HeadWeights]:
    """Read a block head for a target, in whatever layout it is.

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
        check_block_keys(config)
        if (folder / MASK_FILE).exists():
            raise ModelFormatError(
                f"it has {MASK_FILE}, an embedding of the mask's own, which is not known here"
            )
        stored = read_tensors(folder)
        tensors = our_block_names(stored, folder)
        rank = {"markov_rank": told(config, "markov_rank")}
        check_counts(tensors, config, layer_keys(config), rank)
        check_layers(told(config, "num_target_layers"), target)
        resolved = _resolve(config, tensors, target)
        ids = drafted_ids(stored, resolved.vocab_size, resolved.target_vocab_size, folder)
        weights = HeadWeights(tensors, ids)
        check_block(resolved, weights)
    return resolved, weights


def _check_kind(config: Mapping[str, object]) -> None:
    kind, names = config.get("speculators_model_type"), architectures_of(config)
    if kind is not None and kind not in _SPECULATORS:
        raise ModelFormatError(
            f"speculators_model_type is {kind!r:.60}: of block heads, dflash and dspark are known"
        )
    if kind is None and names and not set(_ARCHITECTURES).intersection(names):
        known = ", ".join(_ARCHITECTURES)
        raise ModelFormatError(
            f"architectures is {names[0]!r:.60}: of block heads, {known} are known"
        )
    projector = told(config, "projector_type")
    if projector not in (None, *_PROJECTORS):
        raise ModelFormatError(
            f"projector_type is {projector!r:.60}: of block heads, dflash and dspark are known"
        )


# --- conventions --------------------------------------------------------------------------------


def _resolve(
    config: Mapping[str, object], tensors: Mapping[str, Tensor], target: TargetTables | None
) -> BlockConfig:
    layer = layer_keys(config)
    hidden, heads = size_option(layer, "hidden_size"), size_option(layer, "num_attention_heads")
    is_told = config.get("target_hidden_size") is not None
    # Without a word on it, fc is as wide as the head for each boundary.
    width = size_option(config, "target_hidden_size") if is_told else hidden
    rope = rope_keys(layer)
    theta = number_option(rope, "rope_theta", number_option(layer, "rope_theta", 10_000.0))
    vocab = size_option(layer, "vocab_size")
    rank = size_option({"markov_rank": told(config, "markov_rank")}, "markov_rank", 0, least=0)
    has_confidence = _flag(config, "enable_confidence_head") or False
    return BlockConfig(
        boundaries=_boundaries(config, _num_states(tensors, width), target),
        target_hidden_size=width,
        target_vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=size_option(layer, "intermediate_size"),
        num_layers=size_option(layer, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=size_option(layer, "num_key_value_heads", heads),
        head_size=size_option(layer, "head_dim", _head_size(tensors, hidden // heads)),
        vocab_size=size_option(config, "draft_vocab_size", vocab),
        block_size=_number(config, "block_size", least=1),
        mask_id=_number(config, "mask_token_id", least=0),
        drafts_from_anchor=_drafts_from_anchor(config),
        is_causal=_is_causal(config),
        markov=_markov(config, rank),
        markov_rank=rank,
        has_confidence=has_confidence,
        confidence_reads_token=_reads_token(config, rank) and has_confidence,
        norm_epsilon=number_option(layer, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=tuple((k, v) for k, v in rope.items() if k != "rope_theta"),
        context_length=size_option(layer, "max_position_embeddings", 2048),
        has_embedding="embedding" in tensors,
        has_head="head" in tensors,
        layout=_layout(config),
        target=verifier_of(config),
    )


def _layout(config: Mapping[str, object]) -> str:
    if "speculators_model_type" in config:
        return "speculators"
    names = architectures_of(config)
    if "Qwen3DSparkModel" in names:
        return "DeepSpec"
    return "SpecForge" if "DSparkDraftModel" in names else "z-lab"


def _number(config: Mapping[str, object], key: str, *, least: int) -> int:
    value = told(config, key)
    if value is None:
        raise ModelFormatError(f"config.json has no {key}: write what the head was trained with")
    return size_option({key: value}, key, least=least)


def _flag(config: Mapping[str, object], key: str) -> bool | None:
    value = told(config, key)
    if value is not None and not isinstance(value, bool):
        raise ModelFormatError(f"{key} is {value!r:.60}; it must be true or false")
    return value


def _head_size(tensors: Mapping[str, Tensor], usual: int) -> int:
    norm = tensors.get("layers.0.query_norm")
    return usual if norm is None else len(norm)


def _num_states(tensors: Mapping[str, Tensor], width: int) -> int:
    if "fc" not in tensors:
        raise ModelFormatError("it holds no fc.weight: the file is cut off, or no block head")
    inputs = tensors["fc"].shape[-1]
    if inputs % width:
        raise ModelFormatError(
            f"fc.weight reads {inputs} numbers, which are no whole states of {width}: "
            "it is another target's head"
        )
    return inputs // width


def _boundaries(
    config: Mapping[str, object], num_states: int, target: TargetTables | None
) -> tuple[int, ...]:
    """The ids of layers, wherever they stand, as boundaries."""
    later, exact = told(config, _LATER_IDS), [told(config, key) for key in _BOUNDARIES]
    named = [(one, key) for one, key in zip(exact, _BOUNDARIES, strict=True) if one is not None]
    if later is not None:
        ids = _ids(later, _LATER_IDS)
        # An id of all layers can be a boundary only.
        shift = 0 if max(ids, default=0) == _num_layers(config, target, ids) else 1
        found = tuple(one + shift for one in ids)
        where = _LATER_IDS
    elif named:
        found, where = tuple(_ids(*named[0])), named[0][1]
    else:
        found = _spread(num_states, _num_layers(config, target, None))
        where = "no key gives the target's layers, so that they lie evenly"
    for value, key in named:
        if tuple(_ids(value, key)) != found:
            raise ModelFormatError(
                f"{where} and {key} name other layers: states behind layers {list(found)!r:.60} "
                f"and {value!r:.60}"
            )
    if len(found) != num_states:
        raise ModelFormatError(
            f"fc.weight reads {num_states} states of the target and {where}: "
            f"{len(found)} are told; it is cut off, or of a kind that is not known here"
        )
    return found


def _num_layers(
    config: Mapping[str, object], target: TargetTables | None, ids: list[int] | None
) -> int:
    """Of the target; beyond all ids where nobody says and only that is asked."""
    if target is not None:
        return target.num_layers
    value = told(config, "num_target_layers")
    if value is not None:
        return size_option({"num_target_layers": value}, "num_target_layers")
    if ids is not None:
        return max(ids, default=0) + 1
    raise InvalidRequestError(
        "the head's files leave layers or widths to its target: give --target, too"
    )


def _spread(count: int, num_layers: int) -> tuple[int, ...]:
    """Where z-lab's code looks at a target that no key tells the layers of."""
    if count == 1:
        return (num_layers // 2 + 1,)
    span = num_layers - 4
    return tuple(1 + round(1 + place * span / (count - 1)) for place in range(count))


def _ids(value: object, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(one) is int and one >= -1 for one in value):
        raise ModelFormatError(f"{where} is {value!r:.60}; it must be a list of layers")
    return value


def _drafts_from_anchor(config: Mapping[str, object]) -> bool:
    said, bonus = _flag(config, "sample_from_anchor"), _flag(config, "dspark_bonus_anchor")
    if said is not None and bonus is not None and said == bonus:
        raise ModelFormatError(
            f"sample_from_anchor and dspark_bonus_anchor are both {str(said).lower()}: "
            "they contradict each other"
        )
    if said is not None:
        return said
    if bonus is not None:
        return not bonus
    kind = config.get("speculators_model_type")
    if kind == "dspark":
        raise ModelFormatError(
            "config.json has no sample_from_anchor, which readers of speculators' DSpark heads "
            "take for true or for false: write what the head was trained with into it"
        )
    is_spark = any("DSpark" in name for name in architectures_of(config))
    return kind is None and (is_spark or told(config, "projector_type") == "dspark")


def _is_causal(config: Mapping[str, object]) -> bool:
    told_ones = {key: _flag(config, key) for key in ("causal", "is_causal")}
    if set(told_ones.values()) == {True, False}:
        raise ModelFormatError("causal and is_causal contradict each other")
    return True in told_ones.values()


def _markov(config: Mapping[str, object], rank: int) -> MarkovKind:
    value = told(config, "markov_head_type")
    known = {kind: kind for kind in get_args(MarkovKind) if rank == 0 or kind != "none"}
    if value is not None and (not isinstance(value, str) or value not in known):
        raise ModelFormatError(f"markov_head_type is {value!r:.60}: {', '.join(known)} are known")
    if not rank:
        return "none"
    return "vanilla" if value is None else known[str(value)]


def _reads_token(config: Mapping[str, object], rank: int) -> bool:
    value = _flag(config, "confidence_head_with_markov")
    return rank > 0 if value is None else value
