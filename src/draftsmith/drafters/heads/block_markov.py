"""What the token drawn before adds to a block's logits, as it is drafted with (DSpark).

Three forms, as `PlainBlock.corrections` has them; here row by row, as tokens are drawn.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.product import Place
from draftsmith.drafters.heads.weights import HeadWeights

__all__ = ["Markov"]


class Markov:
    """The tables of a head that has them.

    Args:
        config: Its conventions.
        weights: Checked against them.
        place: Where products go.
    """

    def __init__(self, config: BlockConfig, weights: HeadWeights, place: Place) -> None:
        tensors = weights.tensors
        self._kind = config.markov
        self._previous = tensors["markov.previous"].float().to(place.device)
        self._following = place.product([tensors["markov.following"]])
        name = {"gated": "markov.gate", "rnn": "markov.joint"}.get(config.markov)
        self._mix = None if name is None else tensors[name].float().to(place.device)
        self._bias = None if name is None else place.vector(tensors[f"{name}_bias"])

    @property
    def has_state(self) -> bool:
        """Whether something runs along a block, so that no row can be left out."""
        return self._kind == "rnn"

    def begin(self) -> Float[Tensor, " rank"]:
        """The state before a block's first row."""
        return torch.zeros(self._previous.shape[1], device=self._previous.device)

    def rows(self, tokens: Sequence[int]) -> Float[Tensor, "tokens rank"]:
        """What is known of some tokens."""
        return self._previous[torch.tensor(tokens, device=self._previous.device)]

    def step(
        self,
        hidden: Float[Tensor, "rows width"],
        tokens: Sequence[int],
        states: Float[Tensor, "rows rank"],
    ) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rows rank"]]:
        """The corrections of some rows, and the states behind them.

        Args:
            hidden: Of a row of each block.
            tokens: The target's id before the one that each foretells.
            states: What `begin` or the last step gave.
        """
        token = self.rows(tokens)
        if self._mix is None or self._bias is None:
            return token, states
        if self._kind == "gated":
            mixed = linear(torch.cat((hidden, token), dim=1), self._mix, self._bias)
            return torch.sigmoid(mixed) * token, states
        mixed = linear(torch.cat((states, token, hidden), dim=1), self._mix, self._bias)
        gate, new, out = mixed.chunk(3, dim=1)
        gate = torch.sigmoid(gate)
        return torch.tanh(out), gate * states + (1 - gate) * torch.tanh(new)

    def added(self, corrections: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows vocab"]:
        """What corrections add to logits of the drafted ids."""
        return self._following(corrections)
