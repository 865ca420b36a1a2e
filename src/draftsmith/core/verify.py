"""Verifiers: keep a prefix of each draft, emit one token more, stay exact.

All three share one interface. They differ in what they keep:

- `rejection` is the rule of both papers, token by token: Algorithm 1 of Leviathan, Kalman &
  Matias (arXiv:2211.17192) and Algorithm 2 of Chen et al. (arXiv:2302.01318).
- `block` judges the draft as a whole: Sun et al., "Block Verification Accelerates Speculative
  Decoding" (arXiv:2403.10444). It never keeps less on average.
- `coupled` draws draft and target with the same noise and keeps what agrees: Daliri et al.
  (arXiv:2408.07978). The text is a function of the seed alone, whatever the draft was.

The papers swap letters (the target is p in the first, q in the second), so this package writes
`target_probs` and `draft_probs` and never p or q.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.noise import RoundNoise, Stream
from draftsmith.core.sums import normalised_excess, row_sums
from draftsmith.core.tree_verify import (
    RecursiveRule,
    TraversalRule,
    TreeCheck,
    TreeRule,
    TreeVerdict,
)
from draftsmith.core.verdict import Verdict, assemble, draw
from draftsmith.errors import InvalidRequestError

__all__ = [
    "VERIFIERS",
    "BlockVerifier",
    "Check",
    "CoupledVerifier",
    "RejectionVerifier",
    "ThresholdVerifier",
    "Verifier",
    "ratios",
    "verifier_named",
]


class Check(NamedTuple):
    """What a verifier sees: ragged drafts of a batch, and both models' laws along them."""

    draft_tokens: Int[Tensor, "batch gamma"]
    """Drafted ids; columns from `num_drafted` on are ignored."""
    num_drafted: Int[Tensor, " batch"]
    """Drafted tokens of each row, 0 … gamma, fixed without looking at the tokens they cut."""
    draft_probs: Float[Tensor, "batch gamma vocab"] | None
    """The very laws that the tokens were drawn from, after all sampling processing; None for
    the `coupled` verifier, which never asks."""
    target_probs: Float[Tensor, "batch gamma+1 vocab"]
    """The target's laws, after the same processing; row `num_drafted` is for the bonus."""


class Verifier(ABC):
    """How drafted tokens are drawn and how they are checked."""

    name: ClassVar[str]
    needs_draft_probs: ClassVar[bool]
    """Whether `verify` reads `draft_probs`."""
    takes_trees: ClassVar[bool] = False
    """Whether a tree of certain tokens may be walked with `choose`, and one of drawn tokens be
    given to `verify_tree` where the verifier needs draft laws."""

    @abstractmethod
    def draw(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Draw the drafted token at `index` of this round from the draft's law."""

    @abstractmethod
    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        """Keep a prefix of each draft and emit one further token."""

    def choose(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Draw the target's own token at `index` of this round, for a walk through a tree."""
        raise AssertionError(f"the verifier {self.name} checks chains only")

    def verify_tree(self, check: TreeCheck, noise: RoundNoise) -> TreeVerdict:
        """Keep a path of each tree of drawn tokens and emit one further token."""
        raise AssertionError(f"the verifier {self.name} checks no tree by its laws")


class ThresholdVerifier(Verifier):
    """A verifier that compares one uniform with one threshold for each drafted token."""

    needs_draft_probs: ClassVar[bool] = True
    streams: ClassVar[tuple[int, int, int]] = (Stream.DRAFT, Stream.ACCEPT, Stream.EMIT)
    """Where drafted tokens, acceptance and the emitted token take their uniforms: all apart."""
    tree_rule: ClassVar[TreeRule | None] = None
    """How trees of drawn tokens are checked, by one who takes trees."""

    @abstractmethod
    def thresholds(self, check: Check) -> Float[Tensor, "batch gamma"]:
        """Probability that the test of each drafted token passes; 0 beyond `num_drafted`."""

    @abstractmethod
    def count(self, passed: Bool[Tensor, "batch gamma"]) -> Int[Tensor, " batch"]:
        """How many drafted tokens are kept, from which tests passed."""

    @abstractmethod
    def emitted_law(
        self, check: Check, num_accepted: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """The law of the token after the kept ones."""

    def passes(
        self, uniforms: Float[Tensor, "batch gamma"], thresholds: Float[Tensor, "batch gamma"]
    ) -> Bool[Tensor, "batch gamma"]:
        """Which tests pass."""
        # Strict: u may be exactly 0, and `<=` would then keep a token that the target forbids.
        return uniforms < thresholds

    def decide(
        self, check: Check, accept: Float[Tensor, "batch gamma"], emit: Float[Tensor, " batch"]
    ) -> Verdict:
        """The verdict for given uniforms: a pure function, which the enumeration sums over."""
        return self._decide(check, accept, lambda law: draw(law, emit))

    def draw(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Draw by inverting the CDF at the draft stream's uniform."""
        return noise.draw(self.streams[0], index, probs)

    def choose(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Draw by inverting the CDF at the acceptance stream's uniform."""
        return noise.draw(self.streams[1], index, probs)

    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        """Decide with this round's uniforms."""
        gamma = check.draft_tokens.shape[1]
        accept = noise.uniforms(self.streams[1], gamma)
        return self._decide(check, accept, lambda law: noise.draw(self.streams[2], 0, law))

    def decide_tree(
        self, check: TreeCheck, accept: Float[Tensor, "batch nodes"], emit: Float[Tensor, " batch"]
    ) -> TreeVerdict:
        """The verdict on trees for given uniforms: a pure function, as `decide`."""
        return self._decide_tree(check, accept, lambda law: draw(law, emit))

    def verify_tree(self, check: TreeCheck, noise: RoundNoise) -> TreeVerdict:
        """Decide with this round's uniforms, of which each node has its own."""
        accept = noise.uniforms(self.streams[1], len(check.parents))
        return self._decide_tree(check, accept, lambda law: noise.draw(self.streams[2], 0, law))

    def _decide_tree(
        self,
        check: TreeCheck,
        accept: Float[Tensor, "batch nodes"],
        emit: Callable[[Tensor], Tensor],
    ) -> TreeVerdict:
        assert self.tree_rule is not None
        judged = self.tree_rule.judge(check)
        ends = self.tree_rule.end(check.parents, self.passes(accept, judged.thresholds))
        rows = torch.arange(len(ends), device=ends.device)
        return TreeVerdict(ends, emit(judged.laws[rows, ends + 1]))

    def _decide(
        self, check: Check, accept: Float[Tensor, "batch gamma"], emit: Callable[[Tensor], Tensor]
    ) -> Verdict:
        if not check.draft_tokens.shape[1]:  # plain decoding: nothing to test
            return assemble(check.draft_tokens, check.num_drafted, emit(check.target_probs[:, 0]))
        num_accepted = self.count(self.passes(accept, self.thresholds(check)))
        emitted = emit(self.emitted_law(check, num_accepted))
        return assemble(check.draft_tokens, num_accepted, emitted)


@final
class RejectionVerifier(ThresholdVerifier):
    r"""The papers' rule: keep x with probability min(1, target(x) / draft(x)), in order.

    The first rejection ends the kept prefix; the emitted token is drawn from the residual
    norm(max(0, target - draft)), or, with nothing rejected, from the target (the bonus). Then
    each token follows the target's law whatever the draft was, since

    $$ \min(p, q) + (1 - \beta)\,\frac{\max(0, p - q)}{1 - \beta} = p. $$

    Example:
        >>> import torch
        >>> half = torch.tensor([[[0.5, 0.5]]])
        >>> target = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> check = Check(torch.tensor([[0]]), torch.tensor([1]), half, target)
        >>> RejectionVerifier().decide(check, torch.zeros(1, 1), torch.tensor([0.9])).tokens
        tensor([[ 1, -1]])

    References:
        arXiv:2211.17192, Algorithm 1 and appendix A.1; arXiv:2302.01318, Theorem 1.
    """

    name: ClassVar[str] = "rejection"
    takes_trees: ClassVar[bool] = True
    tree_rule: ClassVar[TreeRule | None] = RecursiveRule()

    def thresholds(self, check: Check) -> Float[Tensor, "batch gamma"]:
        """min(1, target(x) / draft(x)), 0 beyond the draft."""
        return ratios(check).clamp(max=1.0)

    def count(self, passed: Bool[Tensor, "batch gamma"]) -> Int[Tensor, " batch"]:
        """Tests passed before the first failure."""
        return passed.long().cumprod(dim=1).sum(dim=1)

    def emitted_law(
        self, check: Check, num_accepted: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """norm(max(0, target - draft)) at the rejected position; the target after the last."""
        draft, target = _laws_at(check, num_accepted)
        return normalised_excess(target - draft, fallback=target)


@final
class BlockVerifier(ThresholdVerifier):
    """Judge a draft as a block: a weak token may be kept for the sake of the ones after it.

    With P_0 = 1, P_i = min(1, P_(i-1) · target(x_i)/draft(x_i)), residuals
    R_i = max(P_i · target_(i+1) - draft_(i+1), 0) and their masses Z_i, prefix i passes with
    probability Z_i / (Z_i + 1 - P_i), the whole draft with P_gamma. The longest prefix that
    passes is kept, and the emitted token is drawn from norm(R_i) at its end.

    References:
        arXiv:2403.10444, Algorithm 2.
    """

    name: ClassVar[str] = "block"
    takes_trees: ClassVar[bool] = True
    tree_rule: ClassVar[TreeRule | None] = TraversalRule()

    def thresholds(self, check: Check) -> Float[Tensor, "batch gamma"]:
        """The passing probability of each prefix, 0 beyond the draft."""
        gamma = check.draft_tokens.shape[1]
        weights = _block_weights(check)
        masses = self._residual_masses(check, weights)
        # The shortfall first: (masses + 1) - weights would round a weight of 1 to other than 1.
        total = masses + (1 - weights[:, 1:])
        # 0/0: the weight is 1 and the laws agree, so nothing can be gained by stopping here.
        passing = torch.where(total > 0, masses / total, 1.0)
        lengths = torch.arange(1, gamma + 1, device=weights.device)
        drafted = check.num_drafted.unsqueeze(1)
        passing = torch.where(lengths == drafted, weights[:, 1:], passing)
        return torch.where(lengths <= drafted, passing, 0.0)

    def count(self, passed: Bool[Tensor, "batch gamma"]) -> Int[Tensor, " batch"]:
        """Length of the longest prefix that passed; 0 when none did."""
        lengths = torch.arange(1, passed.shape[1] + 1, device=passed.device)
        longest = torch.nn.functional.pad(passed * lengths, (1, 0))
        return longest.amax(dim=1)

    def emitted_law(
        self, check: Check, num_accepted: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """norm(R_i) after i kept tokens; the target after the last."""
        draft, target = _laws_at(check, num_accepted)
        weight = _block_weights(check).gather(1, num_accepted.unsqueeze(1)).to(target.dtype)
        is_bonus = (num_accepted == check.num_drafted).unsqueeze(1)
        return torch.where(
            is_bonus, target, normalised_excess(weight * target - draft, fallback=target)
        )

    def _residual_masses(
        self, check: Check, weights: Float[Tensor, "batch prefixes"]
    ) -> Float[Tensor, "batch gamma"]:
        """Z_i for i = 1 … gamma; the last column stands for no draft and is never used."""
        assert check.draft_probs is not None
        draft, target = check.draft_probs, check.target_probs
        shares = weights.to(draft.dtype)
        masses = torch.zeros_like(weights[:, 1:])
        # Position by position: the terms of one fit in a cache, those of a whole draft do not.
        for index in range(1, draft.shape[1]):
            excess = (shares[:, index, None] * target[:, index]).sub_(draft[:, index])
            masses[:, index - 1] = row_sums(excess.clamp_(min=0))
        return masses


@final
class CoupledVerifier(Verifier):
    """Draw target and draft with one noise, and keep the draft while the draws agree.

    The target's token at a position is argmin over x of noise(x) / target(x), the winner of a
    race of exponentials (Gumbel-max in other words), so it has the target's law; the draft's is
    the same race under its own law, and therefore often the same. The text depends on the seed
    and the position only: not on the draft, gamma, the batch, or whether there is a draft.

    References:
        arXiv:2408.07978 (Daliri, Musco & Suresh), where acceptance is shown to be at least
        (1 - TV) / (1 + TV).
    """

    name: ClassVar[str] = "coupled"
    takes_trees: ClassVar[bool] = True
    needs_draft_probs: ClassVar[bool] = False

    def draw(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Run the race at this position under the draft's law."""
        return noise.race(index, probs.unsqueeze(1)).squeeze(1)

    def choose(
        self, probs: Float[Tensor, "batch vocab"], noise: RoundNoise, index: int
    ) -> Int[Tensor, " batch"]:
        """Run the race at this position under the target's law."""
        return self.draw(probs, noise, index)

    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        """Run the race at every position under the target's law; keep what agrees."""
        chosen = noise.race(0, check.target_probs)
        gamma = chosen.shape[1] - 1
        columns = torch.arange(gamma, device=chosen.device)
        agrees = (chosen[:, :gamma] == check.draft_tokens) & (
            columns < check.num_drafted.unsqueeze(1)
        )
        num_accepted = agrees.long().cumprod(dim=1).sum(dim=1)
        emitted = chosen.gather(1, num_accepted.unsqueeze(1)).squeeze(1)
        return assemble(check.draft_tokens, num_accepted, emitted)


VERIFIERS: dict[str, Verifier] = {
    verifier.name: verifier
    for verifier in (RejectionVerifier(), BlockVerifier(), CoupledVerifier())
}
"""Every verifier by name."""


def verifier_named(name: str) -> Verifier:
    """Look a verifier up.

    Raises:
        InvalidRequestError: If there is none of that name.
    """
    if name not in VERIFIERS:
        known = ", ".join(sorted(VERIFIERS))
        raise InvalidRequestError(f"verifier must be one of {known}, got {name!r}")
    return VERIFIERS[name]


def ratios(check: Check) -> Float[Tensor, "batch gamma"]:
    """target(x) / draft(x) at the drafted tokens, in float64; 0 beyond the draft."""
    assert check.draft_probs is not None
    gamma = check.draft_tokens.shape[1]
    columns = torch.arange(gamma, device=check.draft_tokens.device)
    is_drafted = columns < check.num_drafted.unsqueeze(1)
    index = torch.where(is_drafted, check.draft_tokens, 0).unsqueeze(-1)
    draft = check.draft_probs.gather(-1, index).squeeze(-1).double()
    target = check.target_probs[:, :gamma].gather(-1, index).squeeze(-1).double()
    # A token without draft mass cannot have been drafted; it gets 0, not NaN.
    return torch.where(is_drafted & (draft > 0), target / draft, 0.0)


def _block_weights(check: Check) -> Float[Tensor, "batch prefixes"]:
    """P_0 … P_gamma: how much of the target's mass reaches each prefix, capped at 1."""
    shares = ratios(check)
    weights = [torch.ones_like(check.num_drafted, dtype=torch.float64)]
    for column in range(shares.shape[1]):
        weights.append((weights[-1] * shares[:, column]).clamp(max=1.0))
    return torch.stack(weights, dim=1)


def _laws_at(
    check: Check, num_accepted: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
    """Both laws after the kept tokens; the draft's is empty (zeros) after the last."""
    assert check.draft_probs is not None
    rows = torch.arange(len(num_accepted), device=num_accepted.device)
    target = check.target_probs[rows, num_accepted]
    if not check.draft_probs.shape[1]:
        return torch.zeros_like(target), target
    draft = check.draft_probs[rows, num_accepted.clamp(max=check.draft_probs.shape[1] - 1)]
    is_rejected = (num_accepted < check.num_drafted).unsqueeze(1)
    return torch.where(is_rejected, draft, 0.0), target
