"""Published P-EAGLE heads: an EAGLE-3 head's files, and what stands in for tokens not yet drafted.

`mask_hidden`, [1, 1, boundaries * hidden], stands for the target's states, and the embedding of one
id for the token. That id is `mask_token_id` (speculators), `pard_token` or `ptd_token_id` (vLLM).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.files import read_config, read_tensors
from draftsmith.drafters.heads.layouts import ARCHITECTURES, resolved_head
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.bounds import named_after

__all__ = ["Mask", "claims_parallel", "read_parallel"]

_ARCHITECTURES: Final = {"PEagleSpeculator", "PEagleDraftModel", "PeagleLlamaForCausalLM"}
_TOKENS: Final = ("mask_token_id", "pard_token", "ptd_token_id")
_TRAINING: Final = frozenset(
    (
        "down_sample_ratio",
        "down_sample_ratio_min",
        "max_seq_len",
        "para_depths",
        "prediction_loss_weight",
    )
)
"""How it was trained, which changes nothing of what it computes."""
_HIDDEN: Final = "mask_hidden"


@dataclass(frozen=True)
class Mask:
    """What stands in for a token that is not drafted yet."""

    token: int
    """Whose embedding is read."""
    states: Float[Tensor, "boundaries hidden"]
    """In the place of the target's states; it goes through norms and `fc`, as they do."""
    key: str
    """Which key of config.json named the token."""


def claims_parallel(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a P-EAGLE head.

    Example:
        >>> claims_parallel({"speculators_model_type": "peagle"})
        True
        >>> claims_parallel({"architectures": ["LlamaForCausalLMEagle3"]})
        False
    """
    if "speculators_model_type" in config:
        return config["speculators_model_type"] == "peagle"
    names = _named(config)
    if names & _ARCHITECTURES:
        return True
    is_masked = any(key in config for key in _TOKENS)
    return is_masked and (bool(names & ARCHITECTURES) or "draft_vocab_size" in config)


def read_parallel(
    folder: Path, target: TargetTables | None
) -> tuple[HeadConfig, HeadWeights, Mask]:
    """Read a P-EAGLE head.

    Args:
        folder: With a config.json and the weights.
        target: Whose layers and width fill in what the files leave to convention; None reads a
            head that leaves nothing to it.

    Returns:
        Its conventions, its weights and its mask, checked against each other.

    Raises:
        ModelFormatError: It is of another kind, cut off, or says something that is not known here.
        InvalidRequestError: The target is None, and the files leave something to it.
    """
    with named_after(folder):
        config = read_config(folder)
        _check_architecture(config)
        key, token = _token(config)
        told = config.get("parallel_drafting")
        if told is not None and told is not True:
            raise ModelFormatError(
                f"parallel_drafting is {told!r:.60} beside {key}, which only parallel drafts read: "
                "take one of them out"
            )
        stored = read_tensors(folder)
        name = next((one for one in (_HIDDEN, f"model.{_HIDDEN}") if one in stored), None)
        if name is None:
            raise ModelFormatError(
                f"config.json has {key}, and there is no tensor {_HIDDEN}: fetch it again, or take "
                "the key out if it is an EAGLE-3 head"
            )
        hidden = stored.pop(name)
        ours = {*_TOKENS, *_TRAINING, "parallel_drafting"}
        left = {k: v for k, v in config.items() if k not in ours}
        head, weights = resolved_head(left, stored, target, folder)
        if "PEagleDraftModel" in _named(config) and "speculators_model_type" not in config:
            head = replace(head, layout="SpecForge")
        mask = _mask(head, token, hidden, key)
    return head, weights, mask


def _named(config: Mapping[str, object]) -> set[str]:
    names = config.get("architectures")
    return {str(name) for name in names} if isinstance(names, list) else set()


def _check_architecture(config: Mapping[str, object]) -> None:
    names = _named(config)
    plain = {"LlamaForCausalLM", "Qwen3ForCausalLM"} if "draft_vocab_size" in config else set()
    if names and not names & (_ARCHITECTURES | ARCHITECTURES | plain):
        raise ModelFormatError(
            f"architectures is {min(names)!r}: of P-EAGLE heads, "
            f"{', '.join(sorted(_ARCHITECTURES))} are known"
        )


def _token(config: Mapping[str, object]) -> tuple[str, int]:
    told = {key: config[key] for key in _TOKENS if config.get(key) is not None}
    if len(told) != 1:
        found = ", ".join(f"{key} {value!r:.20}" for key, value in told.items()) or "none of them"
        raise ModelFormatError(
            f"of {', '.join(_TOKENS)}, which name the id that stands for a token not yet drafted, "
            f"config.json has {found}: it must have exactly one; write what the head was trained "
            "with"
        )
    key, value = next(iter(told.items()))
    # vLLM's own tests write it as text.
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise ModelFormatError(f"{key} is {value!r:.60}; it must be an id of the target")
    return key, number


def _mask(head: HeadConfig, token: int, hidden: Tensor, key: str) -> Mask:
    if not 0 <= token < head.target_vocab_size:
        raise ModelFormatError(
            f"{key} is {token}, and the target has ids 0 to {head.target_vocab_size - 1}: write "
            "what the head was trained with"
        )
    size = len(head.boundaries), head.target_hidden_size
    if hidden.numel() != size[0] * size[1]:
        raise ModelFormatError(
            f"{_HIDDEN} of {list(hidden.shape)} does not stand for {size[0]} states of {size[1]}: "
            "fetch it again"
        )
    if not bool(hidden.isfinite().all()):
        raise ModelFormatError(f"{_HIDDEN} is not finite: fetch it again")
    return Mask(token, hidden.reshape(size), key)
