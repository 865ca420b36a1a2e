"""A decoder whose layers are spread over several devices, each block after the one before it."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.memory import check_share_fits, free_memory
from draftsmith.models.native.weights import DecoderWeights, size_of
from draftsmith.models.placement import Placement

__all__ = ["layered_decoder", "shares"]

_log = logging.getLogger(__name__)


def layered_decoder(
    config: DecoderConfig,
    weights: DecoderWeights,
    layers_per_device: Sequence[int],
    devices: Sequence[torch.device],
    dtype: torch.dtype,
    name: str,
) -> TorchDecoder:
    """The plain decoder in blocks: the same sums as on one device, in the same order.

    Args:
        config: The model's shape.
        weights: Packed.
        layers_per_device: Numbers of layers, in the devices' order.
        devices: As many as there are.
        dtype: Of weights, activations and cache.
        name: For messages.

    Raises:
        InvalidRequestError: The numbers fit neither the model nor the devices.
        ModelFormatError: A block does not fit in its device's memory.
    """
    placement = Placement.split(layers_per_device, devices, config.num_layers, name)
    with named_after(Path(name)):
        for device, needed in shares(weights, placement, dtype).items():
            check_share_fits(str(device), needed, free_memory(device))
    # The kernels' passes are graphs of one device each.
    _log.warning(
        "%s runs on plain torch, one block of layers after the other, which is slower than our "
        "kernels: tensor parallelism, where it is possible, is the fast way",
        name,
    )
    return TorchDecoder.from_weights(weights, config, dtype=dtype, name=name, placement=placement)


def shares(
    weights: DecoderWeights, placement: Placement, dtype: torch.dtype
) -> dict[torch.device, int]:
    """Bytes of weights on each device, in the order of the blocks.

    A head that is tied to the embedding is a copy of it where the two lie on different devices.
    """
    counts: dict[torch.device, int] = defaultdict(int)
    for device, layers in placement.blocks:
        counts[device] += sum(weights.layers[number].num_weights for number in layers)
    counts[placement.first] += size_of(weights.embedding)
    if weights.head is not weights.embedding or placement.first != placement.last:
        counts[placement.last] += size_of(weights.head)
    return {device: dtype.itemsize * count for device, count in counts.items()}
