"""Lenience: keep more drafts, at a stated loss of exactness. The one lossy option of the package.

Leviathan, Kalman & Matias, arXiv:2211.17192, appendix A.5. There are two kinds: for sampling, the
draft's probability counts only a share l in the acceptance test; for argmax decoding, a draft is
kept if its probability is at least the share l of the largest. With l = 1 both are exact.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.laws import History, Law
from draftsmith.core.verify import (
    Check,
    RejectionVerifier,
    ThresholdVerifier,
    Verifier,
    ratios,
)

__all__ = ["ArgmaxLenience", "LenientVerifier", "exact_twin", "is_spared", "lenient_beta"]

_EXACT = RejectionVerifier()


class LenientVerifier(ThresholdVerifier):
    """The papers' rule with the draft's probability scaled by l: keep x if u < target / (l draft).

    No token gets more than target(x) / l, whatever the draft; a token may get less than
    target(x), down to none, so texts can lose variety.

    The paper leaves open what is drawn after a rejection. Here it is the exact rule's residual,
    norm(max(0, target - draft)): it has mass only where target > draft, and there the sum never
    exceeds the target, while elsewhere the kept drafts alone have min(draft, target / l) already.
    So the bound holds, and no other residual comes nearer to the target. The one with l in it,
    norm(max(0, target - l draft)), keeps the bound as well but also adds to tokens that have
    more than their share already.

    Args:
        lenience: l, above 0 and at most 1; 1 is `RejectionVerifier`.

    Example:
        >>> from draftsmith.core.verify import Check
        >>> import torch
        >>> draft, target = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.2, 0.8], [0.5, 0.5]]])
        >>> check = Check(torch.tensor([[0]]), torch.tensor([1]), draft, target)
        >>> round(float(LenientVerifier(0.5).thresholds(check)), 3)
        0.4

    References:
        arXiv:2211.17192, appendix A.5.
    """

    name: ClassVar[str] = "lenient rejection"

    def __init__(self, lenience: float) -> None:
        self.lenience = lenience

    def thresholds(self, check: Check) -> Float[Tensor, "batch gamma"]:
        """min(1, target(x) / (l draft(x))), 0 beyond the draft."""
        return (ratios(check) / self.lenience).clamp(max=1.0)

    def count(self, passed: Bool[Tensor, "batch gamma"]) -> Int[Tensor, " batch"]:
        """Tests passed before the first failure."""
        return _EXACT.count(passed)

    def emitted_law(
        self, check: Check, num_accepted: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """norm(max(0, target - draft)) at the rejected position; the target after the last."""
        return _EXACT.emitted_law(check, num_accepted)


@dataclass(frozen=True)
class ArgmaxLenience:
    """Greedy checks that keep a draft x where target(x) >= l max(target).

    The target here is the law before it is standardised to a point mass, with its bans and
    penalties. The paper prints the inequality the other way round (<=), which would keep the
    unlikely drafts, and at l = 1 every draft.

    References:
        arXiv:2211.17192, appendix A.5.
    """

    lenience: float
    """l, above 0 and at most 1."""
    law: Law
    """Logits to the target's law at temperature 1, without cut-offs."""

    def spare(
        self,
        points: Int[Tensor, " rows"],
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """The strict rule's tokens, with the drafted one wherever it is near enough to the best.

        Args:
            points: The argmax of each row.
            logits: The target's, one row after each prefix of the draft.
            history: The committed tokens.
            drafted: The draft, one token fewer than there are rows.
        """
        rows = self.law(logits, history, drafted)[:-1]
        is_kept = is_spared(rows, drafted, self.lenience)
        return torch.cat([torch.where(is_kept, drafted, points[:-1]), points[-1:]])


def is_spared(
    probs: Float[Tensor, "rows vocab"], tokens: Int[Tensor, " rows"], lenience: float
) -> Bool[Tensor, " rows"]:
    """Which tokens have at least the share `lenience` of their row's largest probability.

    Example:
        >>> import torch
        >>> law = torch.tensor([[0.5, 0.3, 0.2]])
        >>> [bool(is_spared(law, torch.tensor([x]), 0.5)) for x in (0, 1, 2)]
        [True, True, False]

    References:
        arXiv:2211.17192, appendix A.5, with the inequality turned round.
    """
    own = probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).double()
    # Not 0 >= 0: a banned token is never spared, nor any token of a row that is no law.
    return (own > 0) & (own >= lenience * probs.amax(-1).double())


def lenient_beta(
    target_probs: Float[Tensor, "*batch vocab"],
    draft_probs: Float[Tensor, "*batch vocab"],
    lenience: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """The probability that a drafted token is kept: sum over x of min(target(x) / l, draft(x)).

    Its mean over positions is alpha_l; at l = 1 it is alpha.

    Args:
        target_probs: The target's laws.
        draft_probs: The draft's laws.
        lenience: l, above 0 and at most 1.

    Example:
        >>> import torch
        >>> target, draft = torch.tensor([0.2, 0.8]), torch.tensor([1.0, 0.0])
        >>> [round(float(lenient_beta(target, draft, l)), 3) for l in (1.0, 0.5, 0.1)]
        [0.2, 0.4, 1.0]

    References:
        arXiv:2211.17192, appendix A.5; corollary 3.6 for l = 1.
    """
    return torch.minimum(target_probs / lenience, draft_probs).sum(-1)


def exact_twin(verifier: Verifier) -> Verifier:
    """The verifier without its lenience."""
    return _EXACT if isinstance(verifier, LenientVerifier) else verifier
