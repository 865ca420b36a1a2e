"""What a kernel knows of the other ranks of its group, and how it waits for them."""

from typing import NamedTuple, no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.launching import CHAINED, launch_options, release, wait

__all__ = ["MOST_PLACES", "Inbox", "Peers", "meet", "meet_at"]

MOST_PLACES = 4096
"""Programs of one exchange, at most."""


class Peers(NamedTuple):
    """The ranks of a group. Pointers are int64: the others' memory, as this rank sees it."""

    floats: Int[Tensor, " ranks"]
    """Pointers to each rank's inboxes."""
    flags: Int[Tensor, " ranks"]
    """Pointers to each rank's flags, int32: one of every place for every rank, rank by rank."""
    meetings: Int[Tensor, " places"]
    """How often each place has met; int32, of this rank."""
    is_off: Int[Tensor, " 1"]
    """Not 0 once nobody shall wait any more; pinned memory of the host."""
    off_here: Int[Tensor, " 1"]
    """The same as the device knows it."""
    rank: int
    size: int


class Inbox(NamedTuple):
    """Where the ranks leave their parts of one exchange: each rank's, in every rank's memory."""

    parts: Float[Tensor, "ranks floats"]
    """This rank's inbox: what each rank has sent, from the front on."""
    offset: int
    """Of the part that this rank sends, in the inboxes of all."""
    peers: Peers


@no_type_check
@triton.jit
def meet_at(place, flags, meetings, is_off, off_here, RANK: tl.constexpr,
            RANKS: tl.constexpr, PLACES: tl.constexpr) -> None:  # fmt: skip
    """Wait until the programs at this place are there on all ranks, and what they sent with them.

    A rank that is gone would be waited for for ever: the host can call the wait off.
    """
    count = tl.load(meetings + place) + 1
    for other in tl.static_range(RANKS):
        if other != RANK:
            theirs = tl.load(flags + other).to(tl.pointer_type(tl.int32))
            tl.atomic_xchg(theirs + RANK * PLACES + place, count, sem="release", scope="sys")
    own = tl.load(flags + RANK).to(tl.pointer_type(tl.int32))
    off = 0
    for other in tl.static_range(RANKS):
        if other != RANK:
            flag = own + other * PLACES + place
            seen = tl.load(flag, volatile=True)
            looks = 0
            # Counts go round; the difference does not.
            while (seen - count < 0) & (off == 0):
                seen = tl.load(flag, volatile=True)
                looks += 1
                if looks % 256 == 0:
                    # A read of the host's memory takes a microsecond, one after the other: programs
                    # look there seldom, and tell each other. Any may be the only one that waits.
                    if looks % 65536 == 0:
                        tl.store(off_here, tl.load(is_off, volatile=True))
                    off = tl.load(off_here, volatile=True)
            # What was sent before the flag was set is there behind this.
            tl.atomic_add(flag, 0, sem="acquire", scope="sys")
    tl.store(meetings + place, count)


@no_type_check
@triton.jit
def _meet(flags, meetings, is_off, off_here, RANK: tl.constexpr, RANKS: tl.constexpr,
          PLACES: tl.constexpr, IS_CHAINED: tl.constexpr) -> None:  # fmt: skip
    release(IS_CHAINED)
    wait(IS_CHAINED)
    meet_at(0, flags, meetings, is_off, off_here, RANK, RANKS, PLACES)


def meet(peers: Peers) -> None:
    """Wait for all ranks.

    Args:
        peers: Who they are.
    """
    _meet[(1,)](
        peers.flags,
        peers.meetings,
        peers.is_off,
        peers.off_here,
        RANK=peers.rank,
        RANKS=peers.size,
        PLACES=MOST_PLACES,
        IS_CHAINED=CHAINED,
        **launch_options(1, is_chained=CHAINED),
    )
