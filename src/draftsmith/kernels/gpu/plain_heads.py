"""The torch twins of the kernels that draft heads alone use; the others' are in `plain`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.fresh import Fresh, Resumed
from draftsmith.kernels.gpu.verdicts import State

__all__ = ["leave", "norm", "resume"]


def norm(
    lines: Float[Tensor, "lines width"],
    weight: Float[Tensor, "groups width"],
    out: Float[Tensor, "rows width"],
    epsilon: float,
    index: Int[Tensor, " rows"] | None = None,
) -> None:
    """What `norms.norm` does; the same arguments."""
    wide = lines.float() if index is None else lines[index.long()].float()
    root = torch.rsqrt(wide.square().mean(1, keepdim=True) + epsilon)
    out.copy_(wide * root * weight.float().repeat(len(out) // len(weight), 1))


def resume(state: State, fresh: Fresh, to: Resumed) -> None:
    """What `fresh.resume` does; the same arguments."""
    batch, rows = to.tokens.shape
    to.starts.copy_(state.lengths - 1 - fresh.nums)
    to.widths.copy_(state.is_live * fresh.nums)
    to.tokens.copy_(fresh.tokens[:, :rows])
    first = torch.arange(batch, device=fresh.nums.device) * rows
    to.lasts.copy_(first + fresh.nums - 1)


def leave(found: Int[Tensor, "batch twice_rows"], state: State, fresh: Fresh) -> None:
    """What `fresh.leave` does; the same arguments."""
    rows = found.shape[1] // 2
    fresh.nums.copy_(state.is_live * found[:, -1] + 1)
    fresh.tokens[:, :rows] = found[:, :rows].clamp(min=0)
