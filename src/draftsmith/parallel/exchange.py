"""What ranks exchange within a pass: sums of partial products, and parts of logits.

Every rank calls alike, in the same order. Sums run rank by rank, whatever the number of rows, so
that a row's bits do not depend on the rows beside it.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from draftsmith.kernels.gpu import plain
from draftsmith.kernels.gpu.peers import Inbox
from draftsmith.kernels.gpu.products import Stream

__all__ = ["Exchange", "GatheredExchange"]


@runtime_checkable
class Exchange(Protocol):
    """How the ranks of a group hear of each other's numbers within a pass."""

    rank: int
    size: int
    tile: int
    """Neighbours of a stream whose squares are summed together."""

    def most_rows(self, columns: int) -> int:
        """Rows of so many columns that one exchange has room for."""
        ...

    def begin(self) -> None:
        """A pass begins."""
        ...

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"] | Inbox:
        """Where kernels leave this rank's part of the next exchange, float32."""
        ...

    def add_up(
        self,
        mine: Float[Tensor, "rows columns"] | Inbox,
        *,
        norm: Float[Tensor, " columns"],
        to: Stream,
        bias: Float[Tensor, " columns"] | None = None,
        residual: Float[Tensor, "rows columns"] | None = None,
    ) -> None:
        """`to = residual + (sum over the ranks) + bias`, and what the norm after it needs.

        Args:
            mine: This rank's part, where `room` said.
            norm: The weight of the norm after this sum.
            to: What is written; its squares are of `tile` neighbours each.
            bias: Added to the sum.
            residual: Added at the end; may be `to.values`.
        """
        ...

    def gather(
        self,
        mine: Float[Tensor, "rows own"] | Inbox,
        num_own: int,
        out: Float[Tensor, "rows columns"],
    ) -> None:
        """Every rank's columns side by side, as many as `out` has.

        Args:
            mine: This rank's, where `room` said.
            num_own: Columns of one rank.
            out: What is written.
        """
        ...

    def end(self) -> None:
        """A pass ends."""
        ...

    def call_off(self) -> None:
        """A rank is gone: nobody shall wait for it. Any thread may say so."""
        ...


class GatheredExchange:
    """Through a collective of torch's that gathers, and summed here in plain torch.

    For ranks on CPUs (gloo), and for GPUs that do not reach each other's memory (NCCL). A
    collective's own sum would have an order of its own: NCCL 2.28 on four GPUs sums a row
    otherwise when another comes with it.

    Args:
        device: Of this rank.
        group: Of torch; None is the default one.
    """

    tile = 256

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        self._device, self._group = device, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def most_rows(self, columns: int) -> int:
        """As many as anybody likes."""
        del columns
        return 1 << 30

    def begin(self) -> None:
        """Nothing to do."""

    def end(self) -> None:
        """Nothing to do."""

    def call_off(self) -> None:
        """Nothing to do: a collective fails when a rank is gone."""

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """New memory."""
        return torch.empty(rows, columns, device=self._device)

    def add_up(
        self,
        mine: Float[Tensor, "rows columns"] | Inbox,
        *,
        norm: Float[Tensor, " columns"],
        to: Stream,
        bias: Float[Tensor, " columns"] | None = None,
        residual: Float[Tensor, "rows columns"] | None = None,
    ) -> None:
        """Gathered, then summed, because a collective's own sum has an order of its own."""
        assert isinstance(mine, Tensor)
        parts = torch.stack(self._parts(mine))
        plain.add_up(parts, norm=norm, to=to, outputs=self.tile, bias=bias, residual=residual)

    def gather(
        self,
        mine: Float[Tensor, "rows own"] | Inbox,
        num_own: int,
        out: Float[Tensor, "rows columns"],
    ) -> None:
        """Gathered, and the last rank's spare columns left out."""
        assert isinstance(mine, Tensor)
        assert mine.shape[1] == num_own
        out.copy_(torch.cat(self._parts(mine), dim=1)[:, : out.shape[1]])

    def _parts(self, mine: Float[Tensor, "rows columns"]) -> list[Tensor]:
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine.contiguous(), group=self._group)
        return found
