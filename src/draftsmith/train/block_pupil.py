"""A block head in training: blocks at some positions of a text, each blind to the others.

Place k of a block weighs exp(-k / 4). With a Markov head the loss is a tenth cross-entropy and nine
tenths the distance of the laws, twice the share that is refused (DSpark's recipe); without one
(DFlash, arXiv:2602.06036) cross-entropy has to teach what laws say at all, and counts as much. How
sure the head says it is, is held against the overlap.
"""

import math
import random
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.train.pupil import Drafted, Emphasis, Pupil
from draftsmith.train.teacher import Lesson

__all__ = ["BlockPupil"]

_FADE = 4.0
_ENTROPY, _VARIATION = 0.1, 1.8
_ROWS_A_TOKEN = 3
"""Rows of blocks in a step, for each of the target's own tokens."""
_MOST_ROWS = 4096
"""Of blocks that a trial asks for at once."""


class BlockPupil(Pupil):
    """Drafts a block from an anchor.

    Args:
        head: Over weights that want gradients.
        mask: The embedding of the mask, where the head is.
    """

    def __init__(self, head: PlainBlock, mask: Float[Tensor, " width"]) -> None:
        self._head, self._mask = head, mask

    @property
    def num_places(self) -> int:
        """Tokens of a block."""
        return self._head.config.longest

    def emphasis(self, place: int) -> Emphasis:
        """Less with every place."""
        share = math.exp(-place / _FADE)
        is_spark = self._head.config.markov != "none"
        return Emphasis(share, _ENTROPY, _VARIATION) if is_spark else Emphasis(share)

    def drafts(self, lesson: Lesson, chance: random.Random | None) -> Iterator[Drafted]:
        """From some anchors of each text, or from all of them, part by part."""
        anchors = _anchors(lesson)
        size = self._head.config.block_size
        if chance is not None:
            share = min(1.0, _ROWS_A_TOKEN / size)
            anchors = [sorted(chance.sample(one, math.ceil(share * len(one)))) for one in anchors]
        most = max(map(len, anchors))
        step = most if chance is not None else max(1, _MOST_ROWS // (size * len(anchors)))
        context = self._head.context(lesson.states)
        for first in range(0, most, max(1, step)):
            part = [one[first : first + step] for one in anchors]
            yield from self._drafted(lesson, context, part)

    def _drafted(
        self, lesson: Lesson, context: Tensor, anchors: list[list[int]]
    ) -> Iterator[Drafted]:
        """The blocks of some anchors; a text with fewer than another has some in vain."""
        head, config, device = self._head, self._head.config, lesson.final.device
        longest, length = max(map(len, anchors)), lesson.is_own.shape[1]
        places = torch.ones(len(anchors), longest, dtype=torch.long)
        is_there = torch.zeros(len(anchors), longest, dtype=torch.bool)
        for line, own in enumerate(anchors):
            places[line, : len(own)] = torch.tensor(own, dtype=torch.long)
            is_there[line, : len(own)] = True
        # Row k of a block goes on from token a+k, behind which the target foretells its own.
        steps = torch.arange(self.num_places)
        rows = places.unsqueeze(-1) + steps
        text = torch.arange(len(anchors))[:, None, None]
        is_wanted = lesson.is_own[text, rows.clamp(max=length - 1)] & (rows < length)
        is_wanted &= is_there.unsqueeze(-1)
        before = lesson.following[
            text.to(device), (rows - 1).clamp(max=length - 1).to(device, non_blocking=True)
        ]
        there = places.to(device, non_blocking=True)
        anchored = lesson.embedded[text[:, 0].to(device), there]
        masks = self._mask.expand(*places.shape, config.block_size - 1, -1)
        blocks = BlockRows(torch.cat((anchored.unsqueeze(2), masks), dim=2), there)
        hidden = head.run(blocks, context)
        hidden = hidden[:, :, 0 if config.drafts_from_anchor else 1 :]
        corrections = head.corrections(hidden, before)
        for place in range(self.num_places):
            line, column = is_wanted[:, :, place].nonzero(as_tuple=True)
            if not len(line):
                continue
            of_law = (line * length + rows[line, column, place]).to(device, non_blocking=True)
            chosen = (line * longest + column).to(device, non_blocking=True)
            yield self._at(place, chosen, of_law, hidden, corrections, before)

    def _at(
        self,
        place: int,
        chosen: Int[Tensor, " rows"],
        of_law: Int[Tensor, " rows"],
        hidden: Float[Tensor, "batch blocks places width"],
        corrections: Float[Tensor, "batch blocks places rank"] | None,
        before: Int[Tensor, "batch blocks places"],
    ) -> Drafted:
        head = self._head
        row = hidden[:, :, place].flatten(0, 1).index_select(0, chosen)
        added = None
        if corrections is not None:
            added = corrections[:, :, place].flatten(0, 1).index_select(0, chosen)
        logits, sure = head.corrected(head.logits(row), added), None
        if head.config.has_confidence:
            sure = head.confidence(row, before[:, :, place].flatten().index_select(0, chosen))
        return Drafted(place, logits, of_law, sure)


def _anchors(lesson: Lesson) -> list[list[int]]:
    """Of each text the tokens behind which its own begin or go on."""
    return [[place for place in range(1, len(own)) if own[place]] for own in lesson.is_own.tolist()]
