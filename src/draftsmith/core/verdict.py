"""The outcome of a check, and the draw that ends it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.sums import running_sums

__all__ = ["PAD_TOKEN", "Verdict", "assemble", "draw", "race"]

PAD_TOKEN = -1
"""Fills the columns of a ragged batch that hold no token."""


class Verdict(NamedTuple):
    """The outcome of checking one batch of drafts."""

    num_accepted: Int[Tensor, " batch"]
    """Drafted tokens kept, between 0 and the number drafted."""
    tokens: Int[Tensor, "batch gamma+1"]
    """The kept drafted tokens, the one emitted token, then `PAD_TOKEN`."""


def assemble(
    draft_tokens: Int[Tensor, "batch gamma"],
    num_accepted: Int[Tensor, " batch"],
    emitted: Int[Tensor, " batch"],
) -> Verdict:
    """Keep the first `num_accepted` drafted tokens of each row and put `emitted` after them."""
    columns = torch.arange(draft_tokens.shape[1] + 1, device=draft_tokens.device)
    kept = num_accepted.unsqueeze(1)
    tokens = torch.nn.functional.pad(draft_tokens, (0, 1), value=PAD_TOKEN)
    tokens = tokens.masked_fill(columns > kept, PAD_TOKEN)
    return Verdict(num_accepted, torch.where(columns == kept, emitted.unsqueeze(1), tokens))


def draw(
    probs: Float[Tensor, "batch vocab"], uniforms: Float[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """Invert the CDF: the first token whose cumulative mass exceeds u, never one of zero mass.

    Example:
        >>> import torch
        >>> draw(torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([0.0])).tolist()
        [1]
    """
    cumulative = running_sums(probs)
    total = cumulative[:, -1:]
    # u * total may round up to the total, past the last token.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    threshold = torch.minimum(uniforms.unsqueeze(-1).double() * total, below_total)
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def race(
    probs: Float[Tensor, "batch rows vocab"], exponentials: Float[Tensor, "batch rows vocab"]
) -> Int[Tensor, "batch rows"]:
    """The token that arrives first: argmin of noise / probability, ties to the lowest id."""
    return (exponentials / probs).argmin(dim=-1)
