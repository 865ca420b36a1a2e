"""A P-EAGLE head as a drafter: one pass for the whole draft.

The last row that pairs a state of the target with a token is followed by rows of the mask, at the
positions that drafted tokens would have; row d of them foretells the token d places further on.
They see what was committed and the masks before them, and are dropped when the round is over. No
row reads what is drafted, so that one pass has all laws of a draft; `depths` in plain torch is the
twin.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import MAX_GAMMA, check_branches
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.heads.eagle3 import EagleHead, HeadRow, Span
from draftsmith.drafters.heads.one_pass import Asked, Places, drafted
from draftsmith.drafters.heads.parallel_layout import Mask
from draftsmith.kernels.cpu.pieces import has_kernels

__all__ = ["ParallelDrafter", "ParallelState"]

_MOST_ROWS = 256
"""Rows of a prompt that are read at once."""
_AT_ONCE = 8
"""Places that one pass has laws for. Where more are wanted, another pass goes on behind it."""


class ParallelDrafter(StatefulDrafter):
    """Drafts with a P-EAGLE head that was trained for the target.

    Args:
        head: Loaded, over the target's tables.
        mask: What stands for tokens that are not drafted yet.
        name: For messages and tables.
        branches: Guesses for each position at most: 1 drafts chains, more a tree of gamma tokens.

    Raises:
        InvalidRequestError: If `branches` is no number from 1 to 8.
    """

    def __init__(
        self, head: EagleHead, mask: Mask, name: str = "p-eagle", branches: int = 1
    ) -> None:
        self.head, self.mask = head, mask
        self.name = name
        self.branches = check_branches(branches)
        self.boundaries = head.config.boundaries
        self.uses_torch_threads = not has_kernels(head.device)

    def open(self) -> "ParallelState":
        """A state without sequences."""
        return ParallelState(self.head, self.mask, self.branches)

    def with_branches(self, branches: int) -> "ParallelDrafter":
        """The same over the same head, with so many guesses for each position at most."""
        return ParallelDrafter(self.head, self.mask, self.name, branches)


class ParallelState(DraftState):
    """The head's cache of one engine's sequences."""

    def __init__(self, head: EagleHead, mask: Mask, branches: int = 1) -> None:
        self._head, self._mask, self._branches = head, mask, branches
        self._masked: Float[Tensor, "1 width"] | None = None
        """What `fc` makes of the mask."""
        self._texts: dict[int, _Text] = {}

    def propose(self, context: DraftContext) -> Draft:
        """Read what was committed and the mask behind it, then draw from the laws."""
        if self._masked is None:
            self._masked = self._head.feature(self._mask.states.unsqueeze(0))
        views = context.sequences
        texts: dict[int, _Text] = {}
        places: dict[int, Places] = {}
        wanted: dict[int, int] = {}
        for row, view in enumerate(views):
            if view.gamma < 1:
                continue
            text = self._texts.setdefault(view.id, _Text(self._head.open_row()))
            text.drop_drafted()
            self._read(context, row, text)
            num_known = text.num_settled + len(text.tokens)
            if num_known:
                # What a grammar has forced since, the target has not read: its places are passed.
                ahead = len(view.tokens) - 1 - num_known
                texts[row], places[row] = text, Places(ahead, MAX_GAMMA)
                wanted[row] = ahead + min(view.gamma, _AT_ONCE)
        self._extend([(texts[row], count) for row, count in wanted.items()])

        def laws(asked: Sequence[Asked]) -> Tensor:
            short = {row: place for row, place in asked if place >= texts[row].num_places}
            self._extend([(texts[row], place + _AT_ONCE) for row, place in short.items()])
            return torch.stack([texts[row].logits[place] for row, place in asked])

        return drafted(context, places, laws, self._branches)

    def release(self, sequence: int) -> None:
        """Forget a sequence."""
        self._texts.pop(sequence, None)

    def _read(self, context: DraftContext, row: int, text: "_Text") -> None:
        """Read what was committed since, but for the last rows, which are read with the mask."""
        states, tokens = context.states(row), context.sequences[row].tokens
        while len(states):
            part, states = states[:_MOST_ROWS], states[_MOST_ROWS:]
            first = text.num_settled
            text.tokens = list(tokens[first + 1 : first + 1 + len(part)])
            text.feature = self._head.feature(part)
            if len(states):
                span = Span(text.row, text.tokens, first)
                text.settle(self._head.run([span], text.feature)[-1:])

    def _extend(self, wanted: Sequence[tuple["_Text", int]]) -> None:
        """See to it that sequences have laws for so many places."""
        assert self._masked is not None
        spans: list[Span] = []
        features: list[Tensor] = []
        sizes: list[int] = []
        for text, count in wanted:
            # Place 0 is that of the last row read.
            num_masks = count - max(text.num_places, 1)
            tokens = [*text.tokens, *[self._mask.token] * num_masks]
            sizes.append(len(tokens))
            if tokens:
                spans.append(Span(text.row, tokens, text.row.length))
                features += [text.feature, self._masked.expand(num_masks, -1)]
        if not wanted:
            return
        streams = self._head.run(spans, torch.cat(features)) if spans else self._masked[:0]
        found = [
            text.take(part) for (text, _), part in zip(wanted, streams.split(sizes), strict=True)
        ]
        logits, _ = self._head.finish(torch.cat(found))
        for (text, _), part in zip(wanted, logits.split([len(one) for one in found]), strict=True):
            text.logits = torch.cat((text.logits, part)) if text.num_places else part


class _Text:
    """Of one sequence: its cache, whose first slots hold what the target has read, by position."""

    def __init__(self, row: HeadRow) -> None:
        self.row = row
        self.num_settled = 0
        self.last = torch.empty(1, 0)
        """What `run` gave for the last row of them."""
        self.tokens: list[int] = []
        self.feature = torch.empty(0, 0)
        """Of rows that are to be read with the mask."""
        self.logits = torch.empty(0, 0)
        """Of each place so far."""

    @property
    def num_places(self) -> int:
        """Places whose laws are known."""
        return len(self.logits)

    def drop_drafted(self) -> None:
        self.row.length = self.num_settled
        self.logits = torch.empty(0, 0)

    def settle(self, last: Float[Tensor, "1 width"], num_masks: int = 0) -> None:
        """Keep what was read, which has as many rows of the mask behind it."""
        self.num_settled, self.last = self.row.length - num_masks, last
        self.tokens, self.feature = [], self.feature[:0]

    def take(self, stream: Float[Tensor, "rows width"]) -> Float[Tensor, "places width"]:
        """What `run` gave for rows to be read and of the mask, as that of new places."""
        num_read = len(self.tokens)
        masks = stream[num_read:]
        if num_read:
            self.settle(stream[num_read - 1 : num_read], len(masks))
        if self.num_places:
            return masks
        return torch.cat((self.last, masks)) if len(masks) else self.last
