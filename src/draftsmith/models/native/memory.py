"""Whether a model fits in memory, before it is read."""

from pathlib import Path

import torch

from draftsmith.errors import ModelFormatError

__all__ = ["available_memory", "check_fits", "check_share_fits", "free_memory"]


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() if device.type == "cpu" else None


def check_fits(needed_bytes: int, available_bytes: int | None) -> None:
    """Refuse a model that is larger than the memory there is; None is not known.

    Raises:
        ModelFormatError: If it is; both sizes are named.
    """
    if available_bytes is not None and needed_bytes > available_bytes:
        raise ModelFormatError(
            f"its weights need {_gigabytes(needed_bytes)} of memory, and "
            f"{_gigabytes(available_bytes)} are available; take a smaller or a quantised model"
        )


def check_share_fits(device: str, needed_bytes: int, free_bytes: int | None) -> None:
    """Refuse layers that are larger than what is free where they go; None is not known.

    Raises:
        ModelFormatError: If they are; the device and both sizes are named.
    """
    if free_bytes is not None and needed_bytes > free_bytes:
        raise ModelFormatError(
            f"its layers on {device} need {_gigabytes(needed_bytes)} there, and "
            f"{_gigabytes(free_bytes)} are free; give that device fewer layers"
        )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
