"""Drafters without memory: random tokens, and the one-pass (non-autoregressive) interface."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.values import check_whole, require
from draftsmith.drafters.contract import DraftContext, Drafter, SequenceView
from draftsmith.drafters.draft import Draft

__all__ = ["BlockDrafter", "RandomDrafter"]


class BlockDrafter(Drafter):
    """A drafter whose one call gives the laws of all gamma tokens (Stern et al. 2018).

    Override `block_logits`. The tokens are drawn in order, so that penalties and bans see the
    ones before, but no law may depend on a token that is drawn in the same round.

    Example:
        >>> import torch
        >>> class Heads(BlockDrafter):
        ...     def block_logits(self, sequences, gamma):
        ...         return torch.eye(8)[:gamma].expand(len(sequences), gamma, 8)
        >>> from draftsmith.testing import check_drafter
        >>> check_drafter(Heads(), vocab_size=8, num_draws=64)
    """

    @abstractmethod
    def block_logits(
        self, sequences: Sequence[SequenceView], gamma: int
    ) -> Float[Tensor, "batch {gamma} vocab"]:
        """Logits of the next `gamma` tokens of every sequence, from one pass.

        Args:
            sequences: The batch, in order; some may want fewer tokens, or none.
            gamma: The most tokens that any of them wants, 1 or more.

        Returns:
            A row for each sequence and token; ids that the target does not know lose their mass.
        """

    def propose(self, context: DraftContext) -> Draft:
        """Call `block_logits` once, then draw up to gamma tokens for each sequence.

        Args:
            context: The round.

        Returns:
            What was drawn, with its laws.
        """
        gamma = max(view.gamma for view in context.sequences)
        if not gamma:
            return context.drawn()
        logits = self.block_logits(context.sequences, gamma)
        live: Sequence[int] = range(len(context.sequences))
        for step in range(gamma):
            live = context.wanting(live)
            if not live:
                break
            context.draw(live, logits[live, step])
        return context.drawn()


class RandomDrafter(BlockDrafter):
    """Uniformly random tokens: the theoretical case of Leviathan et al., section 3.6.

    Args:
        vocab_size: The target's number of ids.

    Example:
        >>> RandomDrafter(vocab_size=8).block_logits([], 2).shape
        torch.Size([0, 2, 8])
    """

    name = "random"
    uses_torch_threads = False

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = check_whole("vocab_size", vocab_size)
        require(self._vocab_size >= 1, "vocab_size", "1 or more", vocab_size)

    def block_logits(
        self, sequences: Sequence[SequenceView], gamma: int
    ) -> Float[Tensor, "batch {gamma} vocab"]:
        """Zeros: every token is as likely as any other."""
        return torch.zeros(()).expand(len(sequences), gamma, self._vocab_size)
