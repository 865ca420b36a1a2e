"""A block head as a drafter: one pass a round, then a draw for each token.

With n tokens committed the target has read tokens 0 to n-2, whose states are the context. Token
n-1 is the anchor, at position n-1; masks follow it. What a grammar has forced since the target's
last pass stands in the place of the first masks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import check_branches
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.heads.block import Block, BlockHead, ContextRow
from draftsmith.drafters.trees import Growth, Tip
from draftsmith.kernels.cpu.pieces import has_kernels

__all__ = ["BlockDrafter", "BlockState"]

_MOST_ROWS = 256
"""Rows of a prompt that are read at once."""


class BlockDrafter(StatefulDrafter):
    """Drafts with a block head that was trained for the target.

    Args:
        head: Loaded, over the target's tables.
        name: For messages and tables.
        branches: Guesses for each position at most: 1 drafts chains, more a tree of gamma tokens.

    Raises:
        InvalidRequestError: If `branches` is no number from 1 to 8.
    """

    def __init__(self, head: BlockHead, name: str = "block", branches: int = 1) -> None:
        self.head = head
        self.name = name
        self.branches = check_branches(branches)
        self.boundaries = head.config.boundaries
        self.longest = head.config.longest
        self.uses_torch_threads = head.device.type == "cpu" and not has_kernels(head.device)

    def open(self) -> "BlockState":
        """A state without sequences."""
        return BlockState(self.head, self.branches)

    def with_branches(self, branches: int) -> "BlockDrafter":
        """The same over the same head, with so many guesses for each position at most."""
        return BlockDrafter(self.head, self.name, branches)


class BlockState(DraftState):
    """The contexts of one engine's sequences."""

    def __init__(self, head: BlockHead, branches: int = 1) -> None:
        self._head, self._branches = head, branches
        self._rows: dict[int, ContextRow] = {}

    # No inference mode: what `draw` keeps of a sequence is written to after the round.
    @torch.no_grad()
    def propose(self, context: DraftContext) -> Draft:
        """Read what was committed, run the blocks, then draw from left to right."""
        views = context.sequences
        wanted = [i for i, view in enumerate(views) if view.gamma > 0]
        begun = {i: one for i in wanted if (one := self._begun(context, i)) is not None}
        if not begun:
            return context.drawn()
        laid = self._laid(context, begun)
        if self._branches > 1 and context.takes_trees:
            return self._grow(context, laid)
        live = context.wanting([i for i in laid if laid[i].has_room])
        while live:
            tokens = [laid[i].before for i in live]
            logits, sure = self._foretold([laid[i] for i in live], tokens)
            drawn = context.draw(live, logits, sure)
            for i, token, known in zip(live, drawn, context.follow(live), strict=True):
                self._go_on(laid[i], [token, *known])
            live = context.wanting([i for i in live if laid[i].has_room])
        return context.drawn()

    def release(self, sequence: int) -> None:
        """Forget a sequence."""
        self._rows.pop(sequence, None)

    def _begun(self, context: DraftContext, index: int) -> "_Begun | None":
        """Read what was committed since, with the target's states; None where there is nothing."""
        view, head = context.sequences[index], self._head
        row = self._rows.get(view.id)
        if row is None:
            row = self._rows[view.id] = head.open_row()
        states = context.states(index)
        for done in range(0, len(states), _MOST_ROWS):
            head.read(row, states[done : done + _MOST_ROWS])
        if not row.length:
            return None
        # Half of a block at least is for guesses; what was forced before stays out of sight.
        known = view.tokens[row.length :][-max(1, head.config.block_size // 2) :]
        return _Begun(row, list(known), len(view.tokens) - len(known), view.gamma)

    def _laid(self, context: DraftContext, begun: "dict[int, _Begun]") -> "dict[int, _Laid]":
        """Run the blocks, and lay out what they say of the tokens that are wanted."""
        head, config = self._head, self._head.config
        blocks: list[Block] = []
        for one in begun.values():
            # Where rows see all of a block, all of it is there, as it was trained.
            size = config.block_size
            if config.is_causal:
                size = min(size, len(one.known) + one.gamma)
            masks = [config.mask_id] * (size - len(one.known))
            blocks.append(Block(one.row, [*one.known, *masks], one.position))
        hidden = head.run(blocks)
        parts = hidden.split([len(block.tokens) for block in blocks])
        found: dict[int, _Laid] = {}
        for (index, one), part in zip(begun.items(), parts, strict=True):
            first = len(one.known) - (1 if config.drafts_from_anchor else 0)
            found[index] = _Laid(one.known[-1], part[first : first + one.gamma])
            if head.markov is not None:
                found[index].state = head.markov.begin()
                if head.markov.has_state:
                    self._pass_over(found[index], part[:first], one.known[:-1])
        # Each matrix is read once; rows of the output matrix cost little beside it.
        logits = head.logits(torch.cat([one.hidden for one in found.values()]))
        counts = [len(one.hidden) for one in found.values()]
        for one, part in zip(found.values(), logits.split(counts), strict=True):
            one.logits = part
        return found

    def _foretold(
        self, laid: "Sequence[_Laid]", tokens: Sequence[int]
    ) -> tuple[Float[Tensor, "rows vocab"], list[float] | None]:
        """The laws of the next tokens of some blocks, and how sure the head is of them."""
        head = self._head
        logits = torch.stack([one.logits[one.place] for one in laid])
        hidden = torch.stack([one.hidden[one.place] for one in laid])
        if head.markov is not None:
            states = torch.stack([one.state for one in laid])
            corrections, after = head.markov.step(hidden, tokens, states)
            logits = logits + head.markov.added(corrections)
            for one, state in zip(laid, after, strict=True):
                one.next_state = state
        return head.spread(logits), head.confidences(hidden, tokens)

    def _go_on(self, laid: "_Laid", tokens: Sequence[int]) -> None:
        """Go behind a drawn token, and behind those that followed it without a draw."""
        laid.state = laid.next_state
        skipped = laid.hidden[laid.place + 1 : laid.place + len(tokens)]
        if self._head.markov is not None and self._head.markov.has_state:
            self._pass_over(laid, skipped, tokens[: len(skipped)])
        laid.place += len(tokens)
        laid.before = tokens[-1]

    def _pass_over(
        self, laid: "_Laid", hidden: Float[Tensor, "rows width"], before: Sequence[int]
    ) -> None:
        """Carry the state along rows of which nothing is drawn."""
        assert self._head.markov is not None
        for row, token in zip(hidden, before, strict=True):
            states = laid.state.unsqueeze(0)
            _, after = self._head.markov.step(row.unsqueeze(0), [token], states)
            laid.state = after[0]

    def _grow(self, context: DraftContext, laid: "dict[int, _Laid]") -> Draft:
        """Grow trees: what a node's children are depends on its depth and its own token."""
        growth = context.grow(list(laid), self._branches, self._head.config.longest)
        behind: dict[tuple[int, ...], Tensor] = {}
        while tips := growth.tips():
            nodes = [self._node(growth, tip, laid[tip.row], behind) for tip in tips]
            logits, _ = self._foretold(nodes, [node.before for node in nodes])
            for tip, node in zip(tips, nodes, strict=True):
                behind[tip.row, *tip.path] = node.next_state
            growth.branch(logits)
        return context.drawn()

    def _node(
        self,
        growth: Growth,
        tip: Tip,
        laid: "_Laid",
        behind: dict[tuple[int, ...], Tensor],
    ) -> "_Laid":
        """A block as it stands behind a node of its tree."""
        if not tip.path:
            return laid
        node = _Laid(growth.token(tip, tip.node), laid.hidden)
        node.logits, node.place = laid.logits, len(tip.path)
        node.state = behind[tip.row, *tip.path[:-1]]
        return node


class _Begun(NamedTuple):
    """A sequence's context, and what is known behind it."""

    row: ContextRow
    known: list[int]
    """The anchor, and what follows it without a guess."""
    position: int
    """Of the anchor."""
    gamma: int


class _Laid:
    """A sequence's block once it has run."""

    def __init__(self, before: int, hidden: Float[Tensor, "rows width"]) -> None:
        self.before = before
        """The token before the next guess."""
        self.hidden = hidden
        """Of the rows that guess."""
        self.logits = torch.empty(0)
        """Of the same rows, without what the tokens before add."""
        self.place = 0
        """The row of the next guess."""
        self.state = self.next_state = torch.empty(0)
        """What runs along the block, before and behind that row."""

    @property
    def has_room(self) -> bool:
        """Whether the block has a guess left."""
        return self.place < len(self.hidden)
