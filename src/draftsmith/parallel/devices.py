"""Whether there is a device for every rank, asked before anything is started or fetched."""

from importlib.util import find_spec

import torch

from draftsmith.errors import InvalidRequestError

__all__ = ["check_devices"]


def check_devices(size: int, device: torch.device) -> None:
    """Refuse more ranks than there are devices.

    Args:
        size: Ranks; on GPUs, rank r has `cuda:r`.
        device: `cpu` or `cuda`.

    Raises:
        InvalidRequestError: There are fewer, or it is another kind of device.
    """
    if device.type not in ("cpu", "cuda") or device.index not in (None, 0):
        raise InvalidRequestError(f"parallel={size} needs device cuda or cpu, got {device}")
    if device.type == "cuda" and torch.cuda.device_count() < size:
        raise InvalidRequestError(
            f"parallel={size} needs {size} GPUs, and there are {torch.cuda.device_count()}"
        )
    if find_spec("triton") is None:
        raise InvalidRequestError(f"parallel={size} needs Triton: pip install triton")
