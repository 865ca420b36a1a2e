"""Which layers of a model lie on which device: block by block, in their order.

A pass runs through the blocks one after another, so that it is as fast as one device, not as many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from draftsmith.core.values import check_whole, require
from draftsmith.errors import InvalidRequestError

__all__ = ["Block", "Placement", "check_layers_per_device", "gpus_for_layers"]


class Block(NamedTuple):
    """Consecutive layers on one device."""

    device: torch.device
    layers: range


class Placement(NamedTuple):
    """The blocks of a model, first layers first.

    The embedding lies beside the first layer, the final norm and the head beside the last; what
    goes in and what comes out lies where the head does.
    """

    blocks: tuple[Block, ...]

    @classmethod
    def whole(cls, device: torch.device, num_layers: int) -> "Placement":
        """All layers on one device."""
        return cls((Block(device, range(num_layers)),))

    @classmethod
    def split(
        cls,
        layers_per_device: Sequence[int],
        devices: Sequence[torch.device],
        num_layers: int,
        name: str,
    ) -> "Placement":
        """So many layers on each device.

        Args:
            layers_per_device: Numbers of layers, each 1 or more.
            devices: As many as there are, in order; not all need to have layers.
            num_layers: Of the model.
            name: The model's, for the refusal.

        Raises:
            InvalidRequestError: There are fewer devices than numbers, or the numbers do not sum up
                to the model's layers.

        Example:
            >>> import torch
            >>> devices = [torch.device("cuda", 0), torch.device("cuda", 1)]
            >>> [block.layers for block in Placement.split((2, 1), devices, 3, "tiny").blocks]
            [range(0, 2), range(2, 3)]
        """
        asked = ",".join(map(str, layers_per_device))
        if len(layers_per_device) > len(devices):
            raise InvalidRequestError(
                f"layers_per_device={asked} names {len(layers_per_device)} devices, and there are "
                f"{len(devices)}: give one number a device"
            )
        if sum(layers_per_device) != num_layers:
            raise InvalidRequestError(
                f"layers_per_device={asked} are {sum(layers_per_device)} layers, and {name} has "
                f"{num_layers}: give numbers that sum up to {num_layers}"
            )
        blocks: list[Block] = []
        first = 0
        for count, device in zip(layers_per_device, devices, strict=False):
            blocks.append(Block(device, range(first, first + count)))
            first += count
        return cls(tuple(blocks))

    @property
    def first(self) -> torch.device:
        """Where the embedding is."""
        return self.blocks[0].device

    @property
    def last(self) -> torch.device:
        """Where the final norm and the head are."""
        return self.blocks[-1].device


def check_layers_per_device(value: object) -> tuple[int, ...]:
    """The numbers of layers that a caller gave.

    Raises:
        InvalidRequestError: It is no sequence of whole numbers of 1 or more.

    Example:
        >>> check_layers_per_device([20, 20])
        (20, 20)
    """
    name, rule = "layers_per_device", "a number of layers for each device, each 1 or more"
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    require(is_sequence, name, rule, value)
    assert isinstance(value, Sequence)
    numbers = tuple(check_whole(name, one, rule) for one in value)
    require(bool(numbers) and min(numbers) >= 1, name, rule, value)
    return numbers


def gpus_for_layers(device: str) -> tuple[torch.device, ...]:
    """The devices that layers are spread over: all that CUDA shows, in its order.

    Args:
        device: What the caller named: `auto` or `cuda`.

    Raises:
        InvalidRequestError: One of them was named, or there is no GPU.
    """
    kind, _, number = device.partition(":")
    if number:
        raise InvalidRequestError(
            f"device {device!r} is one, and layers_per_device fills all GPUs from the first on: "
            "leave device out, or choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    count = torch.cuda.device_count() if kind in ("auto", "cuda") else 0
    if count == 0:
        why = f"device is {device!r}" if kind not in ("auto", "cuda") else "there is none here"
        raise InvalidRequestError(
            f"layers_per_device is for the memories of several GPUs, and {why}: leave it out"
        )
    return tuple(torch.device("cuda", number) for number in range(count))
