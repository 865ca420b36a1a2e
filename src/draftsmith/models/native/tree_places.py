"""Where the tokens of trees lie and what they see, for a decoder that looks at slots by a mask."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.models.contract import Rows
from draftsmith.models.trees import depths_of

__all__ = ["TreePlaces", "tree_places"]


class TreePlaces(NamedTuple):
    """Of the new tokens of a pass."""

    positions: Int[Tensor, "batch width"]
    """Behind what the row holds, by depth."""
    distance: Int[Tensor, "batch width slots"]
    """How many positions back the token in a slot lies; negative where it is not to be seen."""


def tree_places(batch: Rows, past: Sequence[int], device: torch.device) -> TreePlaces:
    """The places of a pass over trees.

    Args:
        batch: Has parents. The padding of a short row follows what the row holds.
        past: Tokens that each row holds.
        device: Of the result.
    """
    assert batch.parents is not None
    width, num_slots = batch.width, max(past) + batch.width
    positions = torch.empty(len(past), width, dtype=torch.long)
    distance = torch.full((len(past), width, num_slots), -1)
    for row, (held, parents) in enumerate(zip(past, batch.parents, strict=True)):
        padded = [*parents, *[-1] * (width - len(parents))]
        positions[row] = held + torch.tensor(depths_of(padded))
        distance[row, :, :held] = positions[row].unsqueeze(1) - torch.arange(held)
        distance[row, :, held : held + width] = _steps(padded)
    return TreePlaces(positions.to(device), distance.to(device))


def _steps(parents: Sequence[int]) -> Int[Tensor, "width width"]:
    """From each token back to those that it follows, and 0 to itself; -1 to all others."""
    steps = torch.full((len(parents), len(parents)), -1)
    for index, parent in enumerate(parents):
        if parent >= 0:
            before = steps[parent]
            steps[index] = torch.where(before < 0, -1, before + 1)
        steps[index, index] = 0
    return steps
