"""Exchanges between GPUs of one host, each of which reads the others' memory."""

import os

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ParallelError
from draftsmith.kernels.gpu import sums
from draftsmith.kernels.gpu.products import Stream
from draftsmith.kernels.gpu.sums import MOST_PLACES, Peers

__all__ = ["SymmetricExchange"]

_FLOATS = 1 << 23
"""Of one exchange: 512 rows of 16,384."""


class SymmetricExchange:
    """Each rank leaves its part in memory that all can read; whoever needs the sum reads it there.

    Needs GPUs that reach each other's memory (NVLink, or PCIe with peer access). It works inside a
    CUDA graph. NVLink multicast is never used.

    Args:
        device: Of this rank.
        group: Of torch; None is the default one.

    Raises:
        ParallelError: The GPUs do not reach each other's memory.
    """

    tile = sums.TILE

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        # No multicast object is made: not every host's switch takes one.
        os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")
        torch_group = dist.group.WORLD if group is None else group
        assert torch_group is not None
        count = 2 * _FLOATS + self.size * MOST_PLACES
        try:
            self._memory = symmetric_memory.empty(count, dtype=torch.float32, device=device)
            self._handle = symmetric_memory.rendezvous(self._memory, torch_group.group_name)
        except RuntimeError as error:
            raise ParallelError(
                f"the GPUs do not reach each other's memory ({str(error).splitlines()[0]}): use "
                "one GPU, or layers_per_device"
            ) from error
        self._memory.zero_()
        torch.cuda.synchronize(device)
        dist.barrier(group)
        floats = torch.tensor(self._handle.buffer_ptrs, dtype=torch.int64, device=device)
        self.is_off = torch.zeros(1, dtype=torch.int32, pin_memory=True)
        """Set to 1 by whoever knows that a rank is gone: nobody waits for it then."""
        self._peers = Peers(
            floats,
            floats + 4 * 2 * _FLOATS,
            torch.zeros(MOST_PLACES, dtype=torch.int32, device=device),
            self.is_off,
            self.rank,
            self.size,
        )
        self._count = 0
        """Exchanges of this pass."""

    def most_rows(self, columns: int) -> int:
        """As many as half of the memory holds, and as a sum has places for."""
        return min(_FLOATS // columns, MOST_PLACES // -(-columns // self.tile))

    def begin(self) -> None:
        """Every pass begins with the first half, whichever graphs came before."""
        self._count = 0

    def end(self) -> None:
        """The next pass writes to the first half: none may still be reading it."""
        if self._count % 2:
            sums.meet(self._peers)

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """The half that nobody reads any more."""
        start = self._start
        return self._memory[start : start + rows * columns].view(rows, columns)

    def add_up(
        self,
        mine: Float[Tensor, "rows columns"],
        *,
        norm: Float[Tensor, " columns"],
        to: Stream,
        bias: Float[Tensor, " columns"] | None = None,
        residual: Float[Tensor, "rows columns"] | None = None,
    ) -> None:
        """One kernel, which reads every rank's memory."""
        assert mine.data_ptr() == self._memory.data_ptr() + 4 * self._start
        sums.add_up(self._peers, self._start, norm=norm, to=to, bias=bias, residual=residual)
        self._count += 1

    def gather(self, mine: Float[Tensor, "rows own"], out: Float[Tensor, "rows columns"]) -> None:
        """One kernel, which reads every rank's memory."""
        assert mine.data_ptr() == self._memory.data_ptr() + 4 * self._start
        sums.gather(self._peers, self._start, mine.shape[1], out)
        self._count += 1

    @property
    def _start(self) -> int:
        return self._count % 2 * _FLOATS
