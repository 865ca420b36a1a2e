"""What ranks exchange within a pass: sums of partial products, and parts of logits.

Sums have one order, rank by rank, whatever the number of rows.
"""

from typing import Protocol

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

__all__ = ["Exchange", "GatheredExchange"]


class Exchange(Protocol):
    """How the ranks of a group hear of each other's numbers; every rank calls alike."""

    rank: int
    size: int

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """Where a kernel leaves what the others are to have, float32; good for one exchange."""
        ...

    def parts(self, mine: Float[Tensor, "rows columns"]) -> Float[Tensor, "ranks rows columns"]:
        """What every rank left, in the order of the ranks.

        Args:
            mine: As `room` gave it, written to.
        """
        ...


class GatheredExchange:
    """Through torch's collectives: gloo on CPUs, NCCL on GPUs.

    Args:
        device: Of this rank.
        group: Of torch; None is the default one.
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        self._device, self._group = device, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """New memory."""
        return torch.empty(rows, columns, device=self._device)

    def parts(self, mine: Float[Tensor, "rows columns"]) -> Float[Tensor, "ranks rows columns"]:
        """Gathered, not summed: whoever sums knows the order."""
        found = mine.new_empty(self.size, *mine.shape)
        dist.all_gather(list(found.unbind()), mine, group=self._group)
        return found
