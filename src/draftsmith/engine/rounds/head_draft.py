"""A trained head as a draft on the device: its steps are part of a round's graph.

With n tokens committed the target has read tokens 0 to n-2, and a head has read all of them but
those that the round before has kept. It reads these first, with the target's states that the round
has left, and goes on from the last of them with its own output: row t stands at position t, reads
token t+1, and foretells token t+2.
"""

from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.gpu_head import GpuHead
from draftsmith.engine.rounds.buffers import MOST_GAMMA, Buffers, Check, Kind
from draftsmith.engine.rounds.device_drafts import DeviceDraft, chosen, prepared
from draftsmith.kernels.gpu import fresh, plain, plain_heads, verdicts
from draftsmith.kernels.gpu.attention import Places
from draftsmith.kernels.gpu.fresh import Resumed
from draftsmith.models.native.gpu_layers import MOST_ROWS
from draftsmith.models.native.gpu_store import PageStore

__all__ = ["HeadDraft"]


class HeadDraft(DeviceDraft):
    """A head: gamma steps of its own, of which the first reads what was committed.

    Args:
        head: On the target's device.
        vocab_size: The target's.
    """

    def __init__(self, head: GpuHead, vocab_size: int) -> None:
        self.store: PageStore | None = head.store
        self.boundaries = head.config.boundaries
        self.like: Tensor | None = head.weights.final_norm
        self._head, self._vocab_size = head, vocab_size

    def num_fresh(self, batch: int, gamma: int, before: int) -> int:
        """As many as this round leaves itself, or few other numbers: each has its own graph."""
        if not gamma:
            return 0
        if before <= gamma:
            return gamma + 1
        most = MOST_GAMMA + 1
        return most if batch * most <= MOST_ROWS else before + 1

    def launch(self, kind: Kind, buffers: Buffers) -> Check:
        """Each step is fed the token that the one before decided for, and that one's output."""
        check, _ = prepared(kind, buffers, self._vocab_size)
        if not kind.gamma:
            return check
        head, state = self._head, buffers.state
        assert self.store is not None
        parts = min(kind.num_parts, self.store.most_pages)
        kernels = verdicts if buffers.slots.is_cuda else plain
        tables = head.tables(buffers.draft_slots, parts)
        resumed, features = self._resumed(kind, buffers)
        places = Places(resumed.starts, resumed.widths, tables, kind.num_fresh)
        stream, rows = head.launch(resumed.tokens, places, features), resumed.lasts
        following = buffers.slots.new_zeros(kind.batch, 1)
        # The first drafted row stands where the newest token is checked, the next behind it.
        starts = state.lengths - 1
        for step in range(kind.gamma):
            logits, feature = head.guess(stream, rows)
            own = chosen(logits, buffers, kind, buffers.draft_columns, self._vocab_size, first=step)
            kernels.take_draft(own, check.tokens, following[:, 0], step + 1)
            if step + 1 < kind.gamma:
                places = Places(starts + step, state.is_live, tables, 1)
                stream, rows = head.launch(following, places, feature), None
        return check

    def leave(
        self,
        buffers: Buffers,
        states: Float[Tensor, "rows boundaries hidden"],
        found: Int[Tensor, "batch twice_rows"],
    ) -> None:
        """What the head makes of the states of all rows; the next round reads those that count."""
        assert buffers.fresh is not None
        features = self._head.features(states).unflatten(0, (buffers.batch, -1))
        buffers.fresh.features[:, : features.shape[1]].copy_(features)
        kernels = fresh if found.is_cuda else plain_heads
        kernels.leave(found, buffers.state, buffers.fresh)

    def _resumed(self, kind: Kind, buffers: Buffers) -> tuple[Resumed, Float[Tensor, "rows width"]]:
        """The rows of the first step, and their features, which are used up by it."""
        left, ints = buffers.fresh, buffers.slots.new_empty
        assert left is not None
        batch, count = kind.batch, kind.num_fresh
        resumed = Resumed(ints(batch), ints(batch), ints(batch, count), ints(batch))
        kernels = fresh if buffers.slots.is_cuda else plain_heads
        kernels.resume(buffers.state, left, resumed)
        return resumed, left.features[:, :count].reshape(batch * count, -1)
