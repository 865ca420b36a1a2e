"""P-EAGLE in plain torch, from every position of a text at once: what the fast one equals.

Row t at depth 0 reads the state of token t and the embedding of token t+1; at depth d it reads the
mask for both, at position t+d. It sees rows of depth 0 up to t, and its own at depths 1 to d.
Behind it are the logits of token t+2+d.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.unroll import Looks

__all__ = ["depths"]


def depths(
    head: PlainHead,
    states: Float[Tensor, "rows boundaries hidden"],
    embedded: Float[Tensor, "rows width"],
    mask_states: Float[Tensor, "boundaries hidden"],
    mask_embedded: Float[Tensor, " width"],
    num_depths: int,
) -> Iterator[Float[Tensor, "rows width"]]:
    """What stands before the final norm at every depth.

    Args:
        head: In plain torch.
        states: Of tokens 0 to n-1 of a text.
        embedded: Embeddings of tokens 1 to n.
        mask_states: What stands for states.
        mask_embedded: The embedding of the id that stands for a token.
        num_depths: Tokens of a draft.

    Yields:
        A stream for each depth d and row t, of which the logits are those of token t+2+d.
    """
    looks, rows = Looks(head.config.num_layers), len(states)
    feature, read = head.feature(states), embedded
    for depth in range(num_depths):
        positions = torch.arange(depth, rows + depth)
        yield head.run(read.unsqueeze(0), feature.unsqueeze(0), positions, looks)[0]
        feature = head.feature(mask_states).expand(rows, -1)
        read = mask_embedded.expand(rows, -1)
