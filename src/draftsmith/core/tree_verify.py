"""Trees whose tokens were drawn: which path is kept, and the law of the token behind it.

Siblings are drawn one after another, each from a law of its own: mostly the draft's, less the
siblings before it. Two rules, of one interface:

- `RecursiveRule` goes down from the root and tests each child with the residual that the siblings
  before it have left: SpecInfer (Miao et al., arXiv:2305.09781), there with replacement.
- `TraversalRule` goes up from the leaves, so that a weak token may be kept for the sake of those
  behind it: Weng et al., "Traversal Verification for Speculative Tree Decoding"
  (arXiv:2505.12398). On a chain it is block verification.

Both are exact for any tree whose shape is foreseeable: how many children a node has may depend on
everything that was drawn before the first of them (the laws so far, the tokens on the way, other
branches), and on nothing that is drawn later; and every token that was drawn is checked.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.sums import normalised_excess, row_sums
from draftsmith.core.trees import ROOT

__all__ = [
    "Judged",
    "RecursiveRule",
    "TraversalRule",
    "TreeCheck",
    "TreeRule",
    "TreeVerdict",
    "without",
]


class TreeCheck(NamedTuple):
    """Drafts of one shape, and both models' laws along them."""

    parents: Sequence[int]
    """Of each node, `ROOT` or one before it; siblings in the order in which they were drawn."""
    draft_tokens: Int[Tensor, "batch nodes"]
    draft_probs: Float[Tensor, "batch nodes vocab"]
    """The very law that each token was drawn from, given the siblings before it."""
    target_probs: Float[Tensor, "batch nodes+1 vocab"]
    """Row 0 is before the tree, row n+1 behind node n."""

    def children(self) -> list[list[int]]:
        """Of each row of `target_probs`, the nodes that follow it, in order."""
        found: list[list[int]] = [[] for _ in range(len(self.parents) + 1)]
        for node, parent in enumerate(self.parents):
            found[parent + 1].append(node)
        return found

    def share(self, law: Float[Tensor, "batch vocab"], node: int) -> Float[Tensor, " batch"]:
        """law(x) / draft(x) at a node's token, in float64."""
        index = self.draft_tokens[:, node : node + 1]
        drafted = self.draft_probs[:, node].gather(1, index).double()
        # A token without draft mass cannot have been drawn; it gets 0, not NaN.
        found = torch.where(drafted > 0, law.gather(1, index).double() / drafted, 0.0)
        return found.squeeze(1)


class TreeVerdict(NamedTuple):
    """The outcome of checking one batch of drawn trees."""

    ends: Int[Tensor, " batch"]
    """The node at which the kept path ends; `ROOT` where nothing is kept."""
    tokens: Int[Tensor, " batch"]
    """The one behind it."""


class Judged(NamedTuple):
    """What a rule says of a tree before any test is made."""

    thresholds: Float[Tensor, "batch nodes"]
    """The probability that each node's test passes, if it is made."""
    laws: Float[Tensor, "batch nodes+1 vocab"]
    """The law of the token behind a path that ends before the tree (row 0), or at node n (n+1)."""


class TreeRule(ABC):
    """How a drawn tree is checked: one uniform for each node, as many as are asked for."""

    @abstractmethod
    def judge(self, check: TreeCheck) -> Judged:
        """Thresholds of all tests, and the laws of the token behind each path."""

    @abstractmethod
    def end(
        self, parents: Sequence[int], passed: Bool[Tensor, "batch nodes"]
    ) -> Int[Tensor, " batch"]:
        """The node at which the kept path ends, `ROOT` for none, from which tests would pass."""


@final
class RecursiveRule(TreeRule):
    r"""Keep child x with probability min(1, p(x) / q(x)), else go on with norm(max(0, p - q)).

    Here p is what the siblings before x have left of the target's law, and q what x was drawn from.
    """

    def judge(self, check: TreeCheck) -> Judged:
        """Every node by its parent's residual."""
        laws = check.target_probs.clone()
        shape = check.draft_tokens.shape
        thresholds = torch.zeros(shape, dtype=torch.float64, device=laws.device)
        for row, children in enumerate(check.children()):
            law = check.target_probs[:, row]
            for node in children:
                thresholds[:, node] = check.share(law, node).clamp(max=1.0)
                law = normalised_excess(law - check.draft_probs[:, node], fallback=law)
            laws[:, row] = law
        return Judged(thresholds, laws)

    def end(
        self, parents: Sequence[int], passed: Bool[Tensor, "batch nodes"]
    ) -> Int[Tensor, " batch"]:
        """The last of the nodes that passed, each behind one that did and the first of its kin."""
        end = torch.full((len(passed),), ROOT, device=passed.device)
        # A node stands behind its parent and its elder siblings: one look at each is enough.
        for node, parent in enumerate(parents):
            end = torch.where((end == parent) & passed[:, node], node, end)
        return end


@final
class TraversalRule(TreeRule):
    r"""Keep the first node that passes, children before their parents.

    On the way down a child x of a node with weight a and law p gets min(1, a p(x) / q(x)). A node
    whose child x did not pass goes on with R = max(0, a p - q), of mass Z, in the place of p and
    with a = Z / (Z + 1 - a); without children left it passes with probability a.
    """

    def judge(self, check: TreeCheck) -> Judged:
        """Every node by the weight that is left to it when its turn has come."""
        batch, device = len(check.draft_tokens), check.target_probs.device
        weights = torch.ones(batch, len(check.parents) + 1, dtype=torch.float64, device=device)
        laws = check.target_probs.clone()
        children = check.children()

        def visit(row: int) -> None:
            for node in children[row]:
                weight, law = weights[:, row], laws[:, row]
                weights[:, node + 1] = (weight * check.share(law, node)).clamp(max=1.0)
                visit(node + 1)
                excess = weight.to(law.dtype).unsqueeze(1) * law - check.draft_probs[:, node]
                mass = row_sums(excess.clamp(min=0)).double()
                total = mass + (1 - weight)
                # 0/0: the weight is 1 and the laws agree, so the child has passed.
                weights[:, row] = torch.where(total > 0, mass / total, 1.0)
                laws[:, row] = normalised_excess(excess, fallback=law)

        visit(0)
        return Judged(weights[:, 1:], laws)

    def end(
        self, parents: Sequence[int], passed: Bool[Tensor, "batch nodes"]
    ) -> Int[Tensor, " batch"]:
        """The first that passed."""
        end = torch.full((len(passed),), ROOT, device=passed.device)
        for node in reversed(_children_first(parents)):
            end = torch.where(passed[:, node], node, end)
        return end


def without(law: Float[Tensor, " vocab"], taken: Sequence[int]) -> Float[Tensor, " vocab"] | None:
    """A law without some tokens, for the next of siblings that are drawn without replacement.

    Example:
        >>> import torch
        >>> without(torch.tensor([0.5, 0.25, 0.25]), [0]).tolist()
        [0.0, 0.5, 0.5]

    Returns:
        None where nothing is left.
    """
    if not taken:
        return law
    left = law.clone()
    left[list(taken)] = 0.0
    mass = row_sums(left.unsqueeze(0))
    return left / mass if bool(mass > 0) else None


def _children_first(parents: Sequence[int]) -> list[int]:
    """Nodes in the order of a walk that takes each behind its children."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)
    order: list[int] = []
    stack = [ROOT]
    # Parents first and the youngest first, read backwards.
    while stack:
        node = stack.pop()
        order.append(node)
        stack += children.get(node, ())
    return order[:0:-1]
