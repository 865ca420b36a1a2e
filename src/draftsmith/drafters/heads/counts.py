"""Counts that a head's config.json tells, held against its tensors and its target.

Nothing is built from a count before it is known that the files can bear it out.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.bounds import check_sizes, extent_of
from draftsmith.models.native.config import size_option

__all__ = ["check_counts", "check_layers"]

_SIZES: Final = (
    "draft_vocab_size",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "markov_rank",
    "num_attention_heads",
    "num_key_value_heads",
    "target_hidden_size",
)
"""No larger than the largest tensor. `vocab_size` is the target's, and held against that."""


def check_counts(tensors: Mapping[str, Tensor], *parts: Mapping[str, object]) -> None:
    """Refuse counts that the tensors cannot have.

    Args:
        tensors: The weights, by whatever names.
        parts: Of the config.json.

    Raises:
        ModelFormatError: With the key.
    """
    extent = extent_of(tuple(tensor.shape) for tensor in tensors.values())
    for part in parts:
        check_sizes(part, ("num_hidden_layers",), _SIZES, extent)


def check_layers(value: object, target: TargetTables | None) -> None:
    """Refuse a head that is for a target of another number of layers.

    Args:
        value: What its `num_target_layers` says; None says nothing.
        target: The one that is there, if one is.

    Raises:
        ModelFormatError: With both numbers.
    """
    if value is None:
        return
    told = size_option({"num_target_layers": value}, "num_target_layers")
    if target is not None and told != target.num_layers:
        raise ModelFormatError(
            f"num_target_layers is {told}, and {target.name} has {target.num_layers} layers: "
            f"give a head that was trained for {target.name}"
        )
