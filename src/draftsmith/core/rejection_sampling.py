"""Classical rejection sampling, the baseline of Leviathan et al. (arXiv:2211.17192), appendix A.2.

It draws from the target by way of the draft as speculative sampling does, and never keeps more:
its threshold is scaled by the worst ratio M = max over x of target(x) / draft(x). It is here to be
compared with; the engine does not use it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.verdict import PAD_TOKEN, draw

__all__ = ["classical_acceptance", "sample_iteratively", "sample_once", "worst_ratio"]


def worst_ratio(
    target_probs: Float[Tensor, "batch vocab"], draft_probs: Float[Tensor, "batch vocab"]
) -> Float[Tensor, " batch"]:
    """M, the largest target(x) / draft(x); infinite where the draft lacks a token of the target.

    Example:
        >>> import torch
        >>> target, draft = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> worst_ratio(target, draft).tolist()
        [2.0]
    """
    ratios = target_probs.double() / draft_probs.double()
    # 0/0: a token that neither has sets no bound.
    return torch.where(target_probs > 0, ratios, 0.0).amax(-1)


def classical_acceptance(
    target_probs: Float[Tensor, "batch vocab"], draft_probs: Float[Tensor, "batch vocab"]
) -> Float[Tensor, " batch"]:
    """The probability that one try is kept: sum over x of target(x) min over x' of draft / target.

    That is 1 / M, and never more than beta = sum of min(target, draft).

    Example:
        >>> import torch
        >>> target, draft = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> classical_acceptance(target, draft).tolist()  # beta is 0.75
        [0.5]

    References:
        arXiv:2211.17192, appendix A.2.
    """
    ratios = draft_probs.double() / target_probs.double()
    least = torch.where(target_probs > 0, ratios, torch.inf).amin(-1, keepdim=True)
    return (target_probs.double() * least).sum(-1)


def sample_once(
    target_probs: Float[Tensor, "batch vocab"],
    draft_probs: Float[Tensor, "batch vocab"],
    uniforms: Float[Tensor, "batch 3"],
) -> Int[Tensor, " batch"]:
    """The variant without iteration: one try, and after a rejection a draw from the target.

    Args:
        target_probs: The law wanted.
        draft_probs: The law that the try is drawn from.
        uniforms: Of the try, of its test, and of the draw after a rejection.

    Returns:
        Tokens that follow `target_probs`: 1/M of them from the try, of which each has its share.

    References:
        arXiv:2211.17192, appendix A.2.
    """
    tried, is_kept = _try(target_probs, draft_probs, uniforms[:, :2])
    return torch.where(is_kept, tried, draw(target_probs, uniforms[:, 2]))


def sample_iteratively(
    target_probs: Float[Tensor, "batch vocab"],
    draft_probs: Float[Tensor, "batch vocab"],
    uniforms: Float[Tensor, "batch tries 2"],
) -> Int[Tensor, " batch"]:
    """Try until a token is kept: x from the draft, kept if u < target(x) / (M draft(x)).

    Args:
        target_probs: The law wanted.
        draft_probs: The law that tries are drawn from.
        uniforms: Of every try and its test; a try fails with probability 1 - 1/M.

    Returns:
        Tokens that follow `target_probs`; `PAD_TOKEN` where every try failed.

    References:
        arXiv:2211.17192, appendix A.2.
    """
    tokens = torch.full((len(uniforms),), PAD_TOKEN, device=uniforms.device)
    for numbers in uniforms.unbind(1):
        tried, is_kept = _try(target_probs, draft_probs, numbers)
        tokens = torch.where((tokens == PAD_TOKEN) & is_kept, tried, tokens)
    return tokens


def _try(
    target_probs: Float[Tensor, "batch vocab"],
    draft_probs: Float[Tensor, "batch vocab"],
    uniforms: Float[Tensor, "batch 2"],
) -> tuple[Tensor, Tensor]:
    """Tokens drawn from the draft, and whether each is kept."""
    tried = draw(draft_probs, uniforms[:, 0])
    target, drafted = (
        law.double().gather(1, tried.unsqueeze(1)).squeeze(1) for law in (target_probs, draft_probs)
    )
    # Strict, and 0 under an infinite M: nothing can then be kept.
    return tried, uniforms[:, 1] < target / (drafted * worst_ratio(target_probs, draft_probs))
