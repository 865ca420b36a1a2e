"""What graphs of rounds read and write on the device, and what tells them apart."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.core.laws import Cuts
from draftsmith.core.noise import NoiseKeys
from draftsmith.kernels.cpu.sampling import NoiseSlot
from draftsmith.kernels.gpu.columns import Columns, columns_of
from draftsmith.kernels.gpu.fresh import Fresh
from draftsmith.kernels.gpu.verdicts import State

__all__ = ["MOST_GAMMA", "PADDING", "Begin", "Buffers", "Check", "Kind", "bucket"]

MOST_GAMMA = 15
"""Of a round that is a graph."""
PADDING = (2, 0, 0, 0)
"""State of a sequence that nobody has: it stands where nothing is out of bounds."""
_GREEDY = Cuts(0.0, 0, 1.0, 0.0)


class Begin(NamedTuple):
    """Where one sequence stands before its first round here."""

    tokens: Sequence[int]
    slot: int
    draft_slot: int
    noise: NoiseSlot
    cuts: Cuts
    draft_cuts: Cuts
    feature: Tensor | None = None
    """`[1, width]`: what a head makes of the state of the token before the newest; None where no
    head drafts."""


class Kind(NamedTuple):
    """What a graph is captured for."""

    batch: int
    gamma: int
    num_parts: int
    is_sampled: bool
    num_fresh: int = 0
    """Tokens of the round before that the draft reads first, at most; 0 where it keeps up by
    itself."""


class Check(NamedTuple):
    """The inputs of the target's pass in one round."""

    starts: Int[Tensor, " batch"]
    widths: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch rows"]
    nums: Int[Tensor, " batch"] | None
    """Drafted tokens of each sequence; None where all have gamma."""


class Buffers:
    """What the graphs of one batch size share.

    Args:
        batch: Sequences.
        device: Where.
        capacity: Tokens of a sequence that are kept here; 0 keeps none.
        like: A row of what rounds leave for a head that drafts; None is no head.
    """

    def __init__(
        self, batch: int, device: torch.device, capacity: int, like: Tensor | None = None
    ) -> None:
        table = torch.zeros(6, batch, dtype=torch.int32, device=device)
        self.batch = batch
        self.state = State(*table[:4])
        self.slots, self.draft_slots = table[4], table[5]
        self.keys = NoiseKeys(*torch.zeros(2, batch, dtype=torch.int64, device=device))
        self.columns = columns_of([_GREEDY] * batch, device)
        self.draft_columns = columns_of([_GREEDY] * batch, device)
        self.history = None
        if capacity:
            self.history = torch.zeros(batch, capacity, dtype=torch.int32, device=device)
        self.fresh = None if like is None else _fresh(batch, like)

    @property
    def between_rounds(self) -> list[Tensor]:
        """What a round moves on, and the next begins with."""
        return [*self.state, *(self.fresh or ())]

    def begin(self, sequences: Sequence[Begin]) -> None:
        """Say which sequences run, and where they stand.

        Args:
            sequences: Each has two tokens or more.
        """
        missing = self.batch - len(sequences)
        numbers = [
            (len(one.tokens), one.tokens[-1], one.tokens[-2], 1, one.slot, one.draft_slot)
            for one in sequences
        ]
        table = torch.tensor([*numbers, *[(*PADDING, 0, 0)] * missing], dtype=torch.int32)
        ints = (*self.state, self.slots, self.draft_slots)
        for held, column in zip(ints, table.T, strict=True):
            held.copy_(column)
        signed = [one.noise.seed - 2**64 * (one.noise.seed >= 2**63) for one in sequences]
        samples = [one.noise.sample for one in sequences]
        for held, column in zip(self.keys, (signed, samples), strict=True):
            held.copy_(torch.tensor([*column, *[0] * missing]))
        _fill(self.columns, [*(one.cuts for one in sequences), *[_GREEDY] * missing])
        _fill(self.draft_columns, [*(one.draft_cuts for one in sequences), *[_GREEDY] * missing])
        if self.fresh is not None:
            self._leave(self.fresh, sequences)
        if self.history is not None:
            for place, one in enumerate(sequences):
                text = torch.tensor(one.tokens, dtype=torch.int32)
                self.history[place, : len(text)] = text.to(self.history.device)

    def _leave(self, fresh: Fresh, sequences: Sequence[Begin]) -> None:
        """As if a round had left each sequence's last but one token alone."""
        fresh.nums.fill_(1)
        fresh.tokens[:, 0].copy_(self.state.newest)
        features = [one.feature for one in sequences if one.feature is not None]
        if features:
            fresh.features[: len(features), 0] = torch.cat(features)


def _fresh(batch: int, like: Tensor) -> Fresh:
    """Room for what rounds leave, as if each had left one token."""
    shape = batch, MOST_GAMMA + 1
    ints = torch.ones(2, *shape, dtype=torch.int32, device=like.device)
    return Fresh(like.new_zeros(*shape, like.shape[-1]), ints[0], ints[1, :, 0].contiguous())


def _fill(columns: Columns, cuts: Sequence[Cuts]) -> None:
    for held, column in zip(columns, columns_of(cuts, torch.device("cpu")), strict=True):
        held.copy_(column)


def bucket(batch: int) -> int:
    """The batch size that a graph has for so many sequences.

    Example:
        >>> [bucket(batch) for batch in (1, 2, 3, 5)]
        [1, 2, 4, 8]
    """
    return 1 << (batch - 1).bit_length()
