"""A head's tensors under our names, whatever the files called them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.errors import ModelFormatError

__all__ = ["HeadWeights", "check_tensors", "layer_name", "shapes"]


def layer_name(number: int, part: str) -> str:
    """Our name of a layer's tensor.

    Example:
        >>> layer_name(0, "query")
        'layers.0.query'
    """
    return f"layers.{number}.{part}"


def shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a head has, by our names.

    Args:
        config: The head's.

    Returns:
        The shape of each, outputs first.
    """
    width, states = config.hidden_size, len(config.boundaries)
    found: dict[str, tuple[int, ...]] = {"fc": (width, states * config.target_hidden_size)}
    if config.feature_norm == "joint":
        found["input_norm"] = (states * config.target_hidden_size,)
    if config.feature_norm == "each":
        found |= {f"fc_norm.{i}": (config.target_hidden_size,) for i in range(states)}
    for number in range(config.num_layers):
        found |= {layer_name(number, k): v for k, v in _layer(config, number == 0).items()}
    found["norm"] = (width,)
    if config.has_head:
        found["head"] = (config.vocab_size, width)
    if config.has_embedding:
        found["embedding"] = (config.target_vocab_size, width)
    return found


def _layer(config: HeadConfig, is_first: bool) -> dict[str, tuple[int, ...]]:
    width = config.hidden_size
    seen = 2 * width if is_first else width
    found: dict[str, tuple[int, ...]] = {
        "input_norm": (width,),
        "post_norm": (width,),
        "query": (config.query_size, seen),
        "key": (config.key_size, seen),
        "value": (config.key_size, seen),
        "output": (width, config.query_size),
        "gate": (config.intermediate_size, width),
        "up": (config.intermediate_size, width),
        "down": (width, config.intermediate_size),
    }
    if is_first:
        found["hidden_norm"] = (width,)
    if config.normalises_heads:
        found |= {"query_norm": (config.head_size,), "key_norm": (config.head_size,)}
    return found


@dataclass(frozen=True)
class HeadWeights:
    """Tensors by the names of `shapes`, in float32, and the ids that are drafted."""

    tensors: dict[str, Tensor]
    ids: Int[Tensor, " draft_vocab"] | None = None
    """Of each drafted id the target's; None where the two vocabularies are one."""

    def check(self, config: HeadConfig) -> None:
        """Refuse tensors that are not this head's.

        Raises:
            ModelFormatError: One is missing, unknown or misshapen, or holds what is no number.
        """
        check_tensors(self.tensors, shapes(config))
        self.check_ids(config.vocab_size, config.target_vocab_size)

    def check_ids(self, vocab_size: int, target_vocab_size: int) -> None:
        """Refuse ids that are not those of a head of so many.

        Args:
            vocab_size: Ids that the head drafts.
            target_vocab_size: Of its target.

        Raises:
            ModelFormatError: They are missing, of another number, or no ids of the target.
        """
        if self.ids is None:
            if vocab_size < target_vocab_size:
                raise ModelFormatError(
                    f"the head drafts {vocab_size} of {target_vocab_size} ids and "
                    "does not say which (d2t): fetch it again"
                )
            return
        least, most = int(self.ids.min()), int(self.ids.max())
        if least < 0 or most >= target_vocab_size:
            wrong = least if least < 0 else most
            raise ModelFormatError(
                f"the head's d2t names id {wrong} of a target with {target_vocab_size}: "
                "it is another target's, or its ids are absolute where offsets are meant"
            )
        if len(torch.unique(self.ids)) != vocab_size:
            raise ModelFormatError(
                f"the head's d2t names {len(torch.unique(self.ids))} ids for {vocab_size} "
                "outputs: fetch it again"
            )


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that are not a head's.

    Args:
        tensors: By our names.
        wanted: The shape of each.

    Raises:
        ModelFormatError: One is missing, unknown or misshapen, or holds what is no number.
    """
    for name, shape in wanted.items():
        if name not in tensors:
            raise ModelFormatError(f"the head has no tensor {name!r}: fetch it again")
        if tuple(tensors[name].shape) != shape:
            raise ModelFormatError(
                f"the head's {name!r} is {list(tensors[name].shape)} where its config "
                f"says {list(shape)}: fetch it again"
            )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ModelFormatError(
                f"the head's {name!r} holds {str(tensor.dtype).removeprefix('torch.')}, where "
                "weights are numbers with fractions: fetch it again"
            )
        if name not in wanted:
            raise ModelFormatError(
                f"the head has a tensor {name!r} that its config does not speak of: "
                "it is of a kind that is not known here"
            )
        if not bool(tensor.isfinite().all()):
            raise ModelFormatError(f"the head's {name!r} is not finite: fetch it again")
