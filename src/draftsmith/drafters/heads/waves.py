"""Cosines and sines of a head's rotary positions, computed once and looked up."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.models.native.rotary import RotaryConfig

__all__ = ["Waves"]

_FIRST = 1024


class Waves:
    """Of one head, on its device.

    Args:
        rotary: Its frequencies.
        device: Where rows are rotated.
    """

    def __init__(self, rotary: RotaryConfig, device: torch.device) -> None:
        self._rotary, self._device = rotary, device
        self._held = torch.empty(0, 2, len(rotary.inverse_frequencies))

    def of(
        self, spans: Sequence[tuple[int, int]]
    ) -> tuple[Float[Tensor, "rows half"], Float[Tensor, "rows half"]]:
        """Cosine and sine of every row's angles.

        Args:
            spans: The first position, and how many rows there are from it on.
        """
        end = max(first + count for first, count in spans)
        if end > len(self._held):
            angles = torch.arange(max(2 * end, _FIRST)).unsqueeze(1)
            angles = angles * self._rotary.inverse_frequencies
            both = torch.stack((angles.cos(), angles.sin()), dim=1) * self._rotary.scale
            self._held = both.to(self._device)
        parts = [self._held[first : first + count] for first, count in spans]
        found = parts[0] if len(parts) == 1 else torch.cat(parts)
        return found[:, 0], found[:, 1]
