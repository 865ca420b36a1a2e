"""A new small draft of the target's own kind: some of the target's layers, between its own tables.

Embedding and output matrix are the target's and do not learn: they are most of the weights of a
small model, and what is between them has to learn to be read by them. Layers are taken evenly, the
first and the last among them, as students of encoders are begun (Sanh et al., arXiv:1910.01108,
section 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.dense import DenseLayer, dense_layer
from draftsmith.models.native.named_layers import named_layer
from draftsmith.models.native.names import TRANSFORMERS
from draftsmith.models.native.write import config_json

__all__ = ["DistilledConfig", "evenly", "new_distilled_config", "new_distilled_weights", "whole"]

_DTYPE = torch.bfloat16
"""Of the stored weights."""


@dataclass(frozen=True)
class DistilledConfig:
    """A small draft's shape, and where it is from."""

    shape: DecoderConfig
    layers: tuple[int, ...]
    """Of the target, from 0: those that it begins with."""
    target: str
    num_target_layers: int

    @property
    def vocab_size(self) -> int:
        """Ids that it drafts."""
        return self.shape.vocab_size

    @property
    def target_vocab_size(self) -> int:
        """The same: it has all of them."""
        return self.shape.vocab_size

    def described(self) -> dict[str, str]:
        """Every convention, for people."""
        shape = self.shape
        return {
            "layout": "transformers",
            "for": self.target,
            "architecture": shape.architecture,
            "layers": f"{shape.num_layers} of {self.num_target_layers}, begun as "
            + ", ".join(map(str, self.layers)),
            "width": str(shape.hidden_size),
            "ids": f"{shape.vocab_size} of {shape.vocab_size}",
            "embedding": "a copy of the target's",
            "output matrix": "a copy of the target's",
        }

    def as_json(self) -> dict[str, object]:
        """Its `config.json`.

        Raises:
            InvalidRequestError: The layout has no words for something of the target's.
        """
        return config_json(self.shape, _DTYPE, self.target)


def evenly(count: int, num_layers: int) -> tuple[int, ...]:
    """Some of a target's layers, the first and the last among them.

    Args:
        count: How many; one is the first.
        num_layers: Of the target.

    Example:
        >>> evenly(3, 30), evenly(1, 30)
        ((0, 14, 29), (0,))
    """
    most = max(1, count - 1)
    return tuple(number * (num_layers - 1) // most for number in range(count))


def new_distilled_config(target: DecoderConfig, name: str, num_layers: int) -> DistilledConfig:
    """A draft of the target's own widths.

    Args:
        target: The shape.
        name: Of the target.
        num_layers: Of the draft.

    Raises:
        InvalidRequestError: The target has fewer layers.
    """
    if num_layers > target.num_layers:
        raise InvalidRequestError(
            f"num_layers must be {target.num_layers} at most, as many as {name} has, got "
            f"{num_layers}"
        )
    layers = evenly(num_layers, target.num_layers)
    windows = tuple(target.windows[number] for number in layers)
    shape = replace(target, num_layers=num_layers, windows=windows)
    return DistilledConfig(shape, layers, name, target.num_layers)


def new_distilled_weights(
    config: DistilledConfig, target: LanguageModel, tables: TargetTables
) -> dict[str, Tensor]:
    """What learns, as it begins: layers and final norm of the target's, in float32.

    Args:
        config: The draft's.
        target: That it is for.
        tables: The target's.

    Returns:
        By the names of a checkpoint of `transformers`.
    """
    found: dict[str, Tensor] = {}
    for number, layer in enumerate(_layers(config, target)):
        found |= named_layer(layer, TRANSFORMERS, number)
    found[TRANSFORMERS.final_norm] = tables.final_norm[0]
    return {name: tensor.float().cpu() for name, tensor in found.items()}


def _layers(config: DistilledConfig, target: LanguageModel) -> list[DenseLayer]:
    if isinstance(target, CpuDecoder):
        packed, host = target.weights.layers, torch.device("cpu")
        return [dense_layer(packed[number], host, torch.float32) for number in config.layers]
    if isinstance(target, TorchDecoder):
        return [target.layers[number] for number in config.layers]
    raise InvalidRequestError(
        f"{config.target} hands out no layers to begin with: give a reader, as the command line "
        "does on a GPU"
    )


def whole(
    config: DistilledConfig, learnt: Mapping[str, Tensor], tables: TargetTables
) -> dict[str, Tensor]:
    """All tensors of the draft as they are stored.

    Args:
        config: The draft's.
        learnt: The layers and the final norm.
        tables: The target's.
    """
    every = range(tables.vocab_size)
    found = {TRANSFORMERS.embedding: tables.embed(every), **learnt}
    if not config.shape.is_tied:
        found[TRANSFORMERS.head] = tables.head_rows(every)
    return {name: tensor.to(_DTYPE) for name, tensor in found.items()}
