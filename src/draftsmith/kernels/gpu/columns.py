"""What the sequences of a batch ask of their laws, as columns on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import Cuts

__all__ = ["Columns", "columns_of"]


class Columns(NamedTuple):
    """What each sequence asks for: `core.laws.Cuts` as columns on the device."""

    temperatures: Float[Tensor, " batch"]
    """Float32; 0 is a point mass."""
    top_ks: Int[Tensor, " batch"]
    """Int32."""
    top_ps: Float[Tensor, " batch"]
    """Float64."""
    min_ps: Float[Tensor, " batch"]
    """Float32."""


def columns_of(cuts: Sequence[Cuts], device: torch.device) -> Columns:
    """What some sequences ask for, as columns.

    Args:
        cuts: One for each.
        device: Where.
    """
    kinds = torch.float32, torch.int32, torch.float64, torch.float32
    columns = zip(*cuts, strict=True)
    return Columns(
        *(
            torch.tensor(one, dtype=kind, device=device)
            for one, kind in zip(columns, kinds, strict=True)
        )
    )
