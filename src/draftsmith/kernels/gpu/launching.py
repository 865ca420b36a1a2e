"""How kernels follow each other: the next is launched before one has ended.

Programmatic dependent launch (CUDA programming guide; Hopper and later): every kernel lets its
successor start, and waits for its predecessor's results before it touches any.
"""

import os
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

__all__ = ["CHAINED", "launch_options", "release", "wait"]


def _can_chain() -> bool:
    is_nvidia = torch.version.cuda is not None and torch.cuda.is_available()
    if os.environ.get("TRITON_INTERPRET") == "1" or not is_nvidia:
        return False
    return torch.cuda.get_device_capability() >= (9, 0)


CHAINED = _can_chain()
"""Whether kernels are chained: the device can, and Triton compiles for it."""


def launch_options(warps: int, *, is_chained: bool) -> dict[str, Any]:
    """What a launch is told beside the kernel's own arguments.

    Args:
        warps: Of a program.
        is_chained: Whether it follows the kernel in front before that has ended.

    Returns:
        Keyword arguments.
    """
    options: dict[str, Any] = {"num_warps": warps}
    # Where kernels are not chained, the option may be unknown.
    return {**options, "launch_pdl": True} if is_chained else options


@no_type_check
@triton.jit
def release(IS_CHAINED: tl.constexpr) -> None:
    """Let the next kernel be launched."""
    if IS_CHAINED:
        tl.extra.cuda.gdc_launch_dependents()


@no_type_check
@triton.jit
def wait(IS_CHAINED: tl.constexpr) -> None:
    """Wait for the results of the kernel before."""
    if IS_CHAINED:
        tl.extra.cuda.gdc_wait()
