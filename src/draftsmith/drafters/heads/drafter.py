"""A trained head as a drafter: it reads the target's states of what was committed, then itself.

With n tokens committed the target has read tokens 0 to n-2. Row t of the head pairs the state of
token t with the embedding of token t+1, at position t; the last row foretells token n. Drafted
rows take the head's own output for a state. They are dropped when the round is over, and the next
round reads what was kept with the target's own states.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import check_branches
from draftsmith.core.trees import ROOT
from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.heads.eagle3 import BranchRow, HeadRow
from draftsmith.drafters.heads.steps import Row, Span, StepHead
from draftsmith.drafters.trees import Tip
from draftsmith.models.follower import Followed

__all__ = ["HeadDrafter", "HeadState", "HeadText"]


_MOST_TOGETHER = 16
"""Rows of each sequence that are read beside those of others."""


class HeadDrafter(StatefulDrafter):
    """Drafts with a head that was trained for the target.

    Args:
        head: Loaded, over the target's tables.
        name: For messages and tables.
        branches: Guesses for each position at most: 1 drafts chains, more a tree of gamma tokens.

    Raises:
        InvalidRequestError: If `branches` is no number from 1 to 8.
    """

    def __init__(self, head: StepHead, name: str = "eagle3", branches: int = 1) -> None:
        self.head = head
        self.name = name
        self.branches = check_branches(branches)
        self.boundaries = head.config.boundaries
        self.uses_torch_threads = head.uses_torch_threads

    def open(self) -> "HeadState":
        """A state without sequences."""
        return HeadState(self.head, self.branches)

    def with_branches(self, branches: int) -> "HeadDrafter":
        """The same over the same head, with so many guesses for each position at most."""
        return HeadDrafter(self.head, self.name, branches)


class HeadState(DraftState):
    """The head's cache of one engine's sequences."""

    def __init__(self, head: StepHead, branches: int = 1) -> None:
        self._head, self._branches = head, branches
        self._rows: dict[int, HeadText] = {}

    @property
    def head(self) -> StepHead:
        """What drafts."""
        return self._head

    def propose(self, context: DraftContext) -> Draft:
        """Read what was committed, then draft token by token; each is drawn from its law."""
        views = context.sequences
        wanted = [i for i, view in enumerate(views) if view.gamma > 0 and self._has_room(view)]
        streams = {i: found for i in wanted if (found := self._read(context, i)) is not None}
        if self._branches > 1 and context.takes_trees:
            return self._grow(context, streams)
        live = context.wanting(list(streams))
        while live:
            stacked = torch.cat([streams[i] for i in live])
            logits, features = self._head.finish(stacked)
            drawn = context.draw(live, logits)
            known = context.follow(live)
            fed = dict(zip(live, zip(drawn, known, features, strict=True), strict=True))
            live = context.wanting(live)
            if live:
                streams = self._step(views, {i: fed[i] for i in live})
        return context.drawn()

    def _grow(self, context: DraftContext, streams: dict[int, Float[Tensor, "1 width"]]) -> Draft:
        """Grow trees, of which every step reads the likeliest nodes at once."""
        growth = context.grow(list(streams), self._branches)
        branches: dict[tuple[int, int], BranchRow] = {}
        features: dict[tuple[int, int], Tensor] = {}
        while tips := growth.tips():
            if tips[0].path:
                spans: list[Span] = []
                for tip in tips:
                    trunk = self._rows[context.sequences[tip.row].id].row
                    assert isinstance(trunk, HeadRow)
                    row = BranchRow(trunk, branches.get((tip.row, _above(tip))))
                    branches[tip.row, tip.node] = row
                    position = trunk.length + len(tip.path) - 1
                    spans.append(Span(row, [growth.token(tip, tip.node)], position))
                before = [features[tip.row, _above(tip)] for tip in tips]
                stream = self._head.run(spans, torch.stack(before))
            else:
                stream = torch.cat([streams[tip.row] for tip in tips])
            logits, behind = self._head.finish(stream)
            for tip, feature in zip(tips, behind, strict=True):
                features[tip.row, tip.node] = feature
            growth.branch(logits)
        return context.drawn()

    def discard(self) -> None:
        """Forget all sequences."""
        self._rows.clear()

    def release(self, sequence: int) -> None:
        """Forget a sequence."""
        self._rows.pop(sequence, None)

    def _read(self, context: DraftContext, index: int) -> Float[Tensor, "1 width"] | None:
        """Read what was committed since, with the target's states.

        Returns:
            What the next draft goes on from; None where the target has read nothing yet.
        """
        view, head = context.sequences[index], self._head
        text = self.settle(view, context.states(index))
        if not text.num_settled:
            return None
        # What a grammar has forced since, the target has not read: the head's own states stand in.
        ahead = view.tokens[text.num_settled + 1 :]
        if not ahead:
            return text.last
        _, feature = head.finish(text.last)
        span = Span(text.row, ahead, text.num_settled)
        return head.run([span], feature.expand(len(ahead), -1))[-1:]

    def text(self, sequence: int) -> "HeadText":
        """What is kept of a sequence, by its id; from now on, if it is new."""
        if sequence not in self._rows:
            self._rows[sequence] = HeadText(self._head.open_row())
        return self._rows[sequence]

    def settle(
        self, sequence: Followed, states: Float[Tensor, "tokens boundaries hidden"]
    ) -> "HeadText":
        """Read what was committed of a sequence since; what was drafted is dropped.

        Args:
            sequence: With its committed tokens.
            states: The target's, of the tokens behind those that were read.
        """
        text = self.text(sequence.id)
        text.drop_drafted()
        step = self._head.most_rows(text.num_settled + len(states))
        for done in range(0, len(states), step):
            self._settle([sequence], [states[done : done + step]])
        return text

    def settle_all(
        self,
        sequences: Sequence[Followed],
        states: Sequence[Float[Tensor, "_ boundaries hidden"]],
    ) -> None:
        """As `settle`, those that lack a few tokens at once."""
        pairs = list(zip(sequences, states, strict=True))
        for sequence, own in pairs:
            if len(own) > _MOST_TOGETHER:
                self.settle(sequence, own)
        few = [(sequence, own) for sequence, own in pairs if 0 < len(own) <= _MOST_TOGETHER]
        for sequence, _ in few:
            self.text(sequence.id).drop_drafted()
        if few:
            self._settle([sequence for sequence, _ in few], [own for _, own in few])

    def _settle(
        self,
        sequences: Sequence[Followed],
        states: Sequence[Float[Tensor, "_ boundaries hidden"]],
    ) -> None:
        """Read some rows of each sequence, behind those that are settled."""
        texts = [self.text(sequence.id) for sequence in sequences]
        spans: list[Span] = []
        for sequence, text, own in zip(sequences, texts, states, strict=True):
            first = text.num_settled
            tokens = sequence.tokens[first + 1 : first + 1 + len(own)]
            spans.append(Span(text.row, tokens, first))
        feature = self._head.feature(states[0] if len(states) == 1 else torch.cat(list(states)))
        stream, end = self._head.run(spans, feature), 0
        for text, own in zip(texts, states, strict=True):
            end += len(own)
            text.settle(stream[end - 1 : end], feature[end - 1 : end])

    def _has_room(self, view: SequenceView) -> bool:
        return self.text(view.id).row.has_room(len(view.tokens) + view.gamma)

    def _step(
        self,
        views: Sequence[SequenceView],
        fed: dict[int, tuple[int, list[int], Float[Tensor, " width"]]],
    ) -> dict[int, Float[Tensor, "1 width"]]:
        """Run the head over what was drawn, and what follows it without a draw."""
        spans: list[Span] = []
        features: list[Tensor] = []
        for index, (token, known, feature) in fed.items():
            text = self._rows[views[index].id]
            tokens = [token, *known]
            spans.append(Span(text.row, tokens, text.row.length))
            # Of tokens that took no draw the head has no state of its own: the last stands in.
            features.append(feature.expand(len(tokens), -1))
        stream = self._head.run(spans, torch.cat(features))
        lasts = torch.tensor([len(span.tokens) for span in spans]).cumsum(0) - 1
        return {i: stream[last : last + 1] for i, last in zip(fed, lasts.tolist(), strict=True)}


def _above(tip: Tip) -> int:
    """The node that a node follows."""
    return tip.path[-2] if len(tip.path) > 1 else ROOT


class HeadText:
    """Of one sequence: its cache, whose first slots hold what the target has read, by position."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.num_settled = 0
        self.last = self.feature = torch.empty(1, 0)
        """What `run` gave for the last of them, and what it was given."""

    def drop_drafted(self) -> None:
        """Forget what the target has not read."""
        self.row.length = self.num_settled

    def pass_over(self, num_settled: int) -> None:
        """Note that so many rows were read on the device; more follow before a draft goes on."""
        self.num_settled = self.row.length = num_settled

    def settle(self, last: Float[Tensor, "1 width"], feature: Float[Tensor, "1 width"]) -> None:
        """Note that the row holds nothing but what the target has read."""
        self.num_settled, self.last, self.feature = self.row.length, last, feature
