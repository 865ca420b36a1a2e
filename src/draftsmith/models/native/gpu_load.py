"""Which decoder runs a model on a GPU: the one on our kernels, where they can, else plain torch."""

import logging
from importlib.util import find_spec
from pathlib import Path

import torch

from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.memory import check_fits
from draftsmith.models.native.weights import DecoderWeights

__all__ = ["decoder_on_gpu"]

_log = logging.getLogger(__name__)
_LEAST_CAPABILITY = (8, 0)
"""Of a GPU whose products take bfloat16."""


def decoder_on_gpu(
    config: DecoderConfig,
    weights: DecoderWeights,
    device: torch.device,
    dtype: torch.dtype,
    name: str,
    num_head_ids: int | None = None,
) -> LanguageModel:
    """The fastest decoder on a GPU that computes such a model.

    Args:
        config: The model's shape.
        weights: Packed.
        device: A CUDA device.
        dtype: Of weights, activations and cache.
        name: For messages.
        num_head_ids: For a draft: of the first ids alone are there logits; None is all.

    Returns:
        The decoder; plain torch, and a warning that says why, where the kernels cannot run.

    Raises:
        ModelFormatError: The weights do not fit in the device's memory.
    """
    with named_after(Path(name)):
        check_fits(dtype.itemsize * weights.num_weights, torch.cuda.mem_get_info(device)[0])
    why = _why_no_kernels(config, torch.cuda.get_device_capability(device))
    if why is not None:
        _log.warning("%s runs on plain torch: %s", name, why)
        return TorchDecoder.from_weights(weights, config, device, dtype, name)
    # Here, because it imports Triton, which not every installation has.
    from draftsmith.models.native.gpu import GpuDecoder

    return GpuDecoder.from_weights(weights, config, device, dtype, name, num_head_ids)


def _why_no_kernels(config: DecoderConfig, capability: tuple[int, int]) -> str | None:
    """What the kernels lack for such a model on such a device; None if nothing."""
    if find_spec("triton") is None:
        return "Triton, which compiles the kernels, is not installed (pip install triton)"
    if capability < _LEAST_CAPABILITY:
        has, least = (".".join(map(str, one)) for one in (capability, _LEAST_CAPABILITY))
        return f"its GPU has compute capability {has}, and the kernels need {least}"
    from draftsmith.models.native.gpu import GpuDecoder

    if not GpuDecoder.computes(config):
        return f"the kernels do not know all that this {config.architecture} model computes"
    return None
