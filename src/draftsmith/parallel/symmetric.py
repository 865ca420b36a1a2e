"""Exchanges between GPUs of one host, which write to each other's memory."""

import os

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ParallelError
from draftsmith.kernels.gpu import sums
from draftsmith.kernels.gpu.peers import MOST_PLACES, Inbox, Peers, meet
from draftsmith.kernels.gpu.products import Stream

__all__ = ["SymmetricExchange"]

_FLOATS = 1 << 23
"""That a rank sends in one exchange, at most: 512 rows of 16,384."""


class SymmetricExchange:
    """Each rank writes its part into the others' memory, where their kernels wait for it.

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
        # Two inboxes, used in turn: what is read from one is not written over before all have met
        # again. Behind them the flags.
        count = 2 * self.size * _FLOATS
        try:
            memory = symmetric_memory.empty(
                count + self.size * MOST_PLACES, dtype=torch.float32, device=device
            )
            self._handle = symmetric_memory.rendezvous(memory, torch_group.group_name)
        except RuntimeError as error:
            raise ParallelError(
                f"the GPUs do not reach each other's memory ({str(error).splitlines()[0]})"
            ) from error
        memory.zero_()
        torch.cuda.synchronize(device)
        dist.barrier(group)
        self._inboxes = memory[:count].view(2, self.size, _FLOATS)
        floats = torch.tensor(self._handle.buffer_ptrs, dtype=torch.int64, device=device)
        self._is_off = torch.zeros(1, dtype=torch.int32, pin_memory=True)
        self._peers = Peers(
            floats,
            floats + count * memory.itemsize,
            torch.zeros(MOST_PLACES, dtype=torch.int32, device=device),
            self._is_off,
            torch.zeros(1, dtype=torch.int32, device=device),
            self.rank,
            self.size,
        )
        self._count = 0
        """Exchanges of this pass."""

    def most_rows(self, columns: int) -> int:
        """As many as an inbox holds."""
        return _FLOATS // columns

    def begin(self) -> None:
        """Every pass begins with the first inbox, whichever graphs came before."""
        self._count = 0

    def end(self) -> None:
        """The next pass sends to the first inbox: none may still be reading it."""
        if self._count % 2:
            meet(self._peers)

    def call_off(self) -> None:
        """Kernels look at this now and then while they wait."""
        self._is_off.fill_(1)

    def room(self, rows: int, columns: int) -> Inbox:
        """The inbox that nobody reads any more."""
        assert rows * columns <= _FLOATS
        number = self._count % 2
        offset = (number * self.size + self.rank) * _FLOATS
        return Inbox(self._inboxes[number], offset, self._peers)

    def add_up(
        self,
        mine: Float[Tensor, "rows columns"] | Inbox,
        *,
        norm: Float[Tensor, " columns"],
        to: Stream,
        bias: Float[Tensor, " columns"] | None = None,
        residual: Float[Tensor, "rows columns"] | None = None,
    ) -> None:
        """One kernel, which waits for the others' parts."""
        sums.add_up(self._current(mine), norm=norm, to=to, bias=bias, residual=residual)
        self._count += 1

    def gather(
        self,
        mine: Float[Tensor, "rows own"] | Inbox,
        num_own: int,
        out: Float[Tensor, "rows columns"],
    ) -> None:
        """One kernel, which waits for the others' parts."""
        sums.gather(self._current(mine), num_own, out)
        self._count += 1

    def _current(self, mine: object) -> Inbox:
        assert isinstance(mine, Inbox)
        assert mine.offset == (self._count % 2 * self.size + self.rank) * _FLOATS
        return mine
