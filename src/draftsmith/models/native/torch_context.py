"""What all layers of a plain decoder's pass share: places, angles and masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.models.contract import Rows
from draftsmith.models.native.config import DecoderConfig, RotaryConfig
from draftsmith.models.native.torch_cache import TorchCache
from draftsmith.models.native.tree_places import tree_places

__all__ = ["PassContext", "Waves", "pass_context", "rotate", "seen", "waves_by_window"]


class Waves(NamedTuple):
    """Cosine and sine of every position's angles, for all heads."""

    cosine: Float[Tensor, "batch rows 1 angles"]
    sine: Float[Tensor, "batch rows 1 angles"]

    def to(self, device: torch.device) -> "Waves":
        """The same on a device."""
        return Waves(self.cosine.to(device), self.sine.to(device))


class PassContext(NamedTuple):
    """What the layers of a pass share, on the device of some of them."""

    rows: Int[Tensor, " batch"]
    """Rows of the cache."""
    places: Int[Tensor, " places"]
    """What the new tokens are written to."""
    waves: dict[int | None, Waves]
    """Of the layers with a sliding window, and without."""
    masks: dict[int | None, Bool[Tensor, "batch rows slots"]]
    """Which slots a token sees, by sliding window; None is always there."""

    def to(self, device: torch.device) -> "PassContext":
        """The same on a device."""
        if device == self.rows.device:
            return self
        return PassContext(
            self.rows.to(device),
            self.places.to(device),
            {window: waves.to(device) for window, waves in self.waves.items()},
            {window: mask.to(device) for window, mask in self.masks.items()},
        )


def pass_context(
    config: DecoderConfig,
    batch: Rows,
    past: Sequence[int],
    cache: TorchCache,
    device: torch.device,
) -> PassContext:
    """The context of a pass.

    Args:
        config: The model's shape.
        batch: The pass.
        past: Tokens that each of its rows holds.
        cache: With room for the new ones.
        device: Of the result.
    """
    start = torch.tensor(past, device=device).unsqueeze(1)
    # The padding of a short row lands in slots that its own next tokens overwrite.
    places = start + torch.arange(batch.width, device=device)
    rows = torch.tensor(list(batch.rows), device=device)
    slots = torch.arange(max(past) + batch.width, device=device)
    if batch.parents is None:
        positions, distance = places, places.unsqueeze(2) - slots
    else:
        positions, distance = tree_places(batch, past, device)
    masks = {window: seen(distance, window) for window in {None, *config.windows}}
    waves = waves_by_window(config, positions)
    return PassContext(rows, cache.places(rows, places), waves, masks)


def seen(distance: Int[Tensor, "*shape"], window: int | None) -> Bool[Tensor, "*shape"]:
    """Whether a token sees one so many places before it."""
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def waves_by_window(
    config: DecoderConfig, positions: Int[Tensor, "batch rows"]
) -> dict[int | None, Waves]:
    """Of the layers with each sliding window, and of those without."""
    return {
        window: _waves(config.layer_rotary(layer), positions)
        for layer, window in enumerate(config.windows)
        if window not in config.windows[:layer]
    }


def _waves(rotary: RotaryConfig, positions: Int[Tensor, "batch rows"]) -> Waves:
    frequencies = rotary.inverse_frequencies.to(positions.device, non_blocking=True)
    angles = (positions.unsqueeze(-1) * frequencies).unsqueeze(2)
    return Waves(angles.cos() * rotary.scale, angles.sin() * rotary.scale)


def rotate(
    states: Float[Tensor, "batch rows heads head"], waves: Waves
) -> Float[Tensor, "batch rows heads head"]:
    """Turn each element of the first half with its twin in the second; the rest stays."""
    cosine, sine = waves.cosine.to(states.dtype), waves.sine.to(states.dtype)
    half = cosine.shape[-1]
    first, second, rest = states.split((half, half, states.shape[-1] - 2 * half), dim=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat((*turned, rest), dim=-1)
