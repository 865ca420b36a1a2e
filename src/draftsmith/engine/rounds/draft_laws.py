"""What a drafted token comes from, for one sequence: its draft's law behind a prefix of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN
from draftsmith.engine.rounds.turn import Turn
from draftsmith.kernels.cpu.sampling import has_mass

__all__ = ["fitted", "law_with_mass", "likeliest"]


def fitted(logits: Float[Tensor, "rows v"], vocab_size: int) -> Float[Tensor, "rows w"]:
    """Logits over the target's ids: padding of either vocabulary has no mass."""
    missing = vocab_size - logits.shape[-1]
    if missing <= 0:
        return logits[..., :vocab_size]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)


def likeliest(turn: Turn, logits: Float[Tensor, "1 vocab"], drafted: Sequence[int]) -> int:
    """The draft's token; where its logits are none, or all banned, the first that is allowed."""
    token = turn.draft_point_after(logits, drafted)
    if token == NO_TOKEN:
        token = turn.draft_point_after(torch.zeros_like(logits), drafted)
    return max(token, 0)


def law_with_mass(
    turn: Turn, logits: Float[Tensor, "1 vocab"], drafted: Sequence[int]
) -> Float[Tensor, "1 vocab"]:
    """The draft's law; where its logits are none, or all banned, any token that is allowed."""
    law = turn.draft_law_after(logits, drafted)
    if bool(has_mass(law)):
        return law
    law = turn.draft_law_after(torch.zeros_like(logits), drafted)
    return law if bool(has_mass(law)) else torch.full_like(law, 1 / law.shape[-1])
