"""Several draft steps from every position of a text at once, as a draft would take them.

Step 0 reads the target's states. Step s goes on from what step s-1 gave at the same position t: it
sees the rows of step 0 up to t, as a draft sees what was committed, and its own earlier steps.
Li et al. (arXiv:2503.01840) train with it ("training-time test"); a self-test looks through it.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.plain import PlainHead

__all__ = ["Looks", "unrolled"]


def unrolled(
    head: PlainHead,
    states: Float[Tensor, "batch rows boundaries hidden"],
    embedded: Float[Tensor, "batch rows width"],
    num_steps: int,
) -> Iterator[Float[Tensor, "batch rows width"]]:
    """What `PlainHead.run` gives at every step.

    Args:
        head: In plain torch, differentiable.
        states: Of tokens 0 to n-1 of each text.
        embedded: Embeddings of tokens 1 to n, which were committed.
        num_steps: Tokens of a draft.

    Yields:
        A stream for each step s and token t, of which the logits are those of token t+2+s. Beyond
        the end of a text, steps read zeros: their rows mean nothing.
    """
    feature, rows = head.feature(states), states.shape[1]
    looks = Looks(head.config.num_layers)
    for step in range(num_steps):
        shifted = torch.zeros_like(embedded)
        shifted[:, : rows - step] = embedded[:, step:]
        positions = torch.arange(step, rows + step, device=embedded.device)
        stream = head.run(shifted, feature, positions, looks)
        yield stream
        feature = head.fed_back(stream)


class Looks:
    """What each row of a step sees, layer by layer; it keeps every step's keys and values.

    Args:
        num_layers: Of the head.
    """

    def __init__(self, num_layers: int) -> None:
        self._held: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(num_layers)]

    def __call__(self, number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What the queries of a step's layer gather: an `Attend`."""
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        held = self._held[number]
        held.append((key, value))
        query = query * query.shape[-1] ** -0.5
        rows = query.shape[2]
        scores = query @ held[0][0].transpose(2, 3)
        later = torch.ones(rows, rows, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
        own = [(query * earlier).sum(-1, keepdim=True) for earlier, _ in held[1:]]
        weights = torch.cat((scores, *own), dim=-1).softmax(dim=-1)
        gathered = weights[..., :rows] @ held[0][1]
        for place, (_, earlier) in enumerate(held[1:], rows):
            gathered = gathered + weights[..., place : place + 1] * earlier
        return gathered
