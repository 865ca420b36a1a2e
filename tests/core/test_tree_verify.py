"""Rung 0 for trees of drawn tokens: exact by enumeration, and planted bugs are caught."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from draftsmith.audit.proof import EXACT, a_world
from draftsmith.core.enumeration import RandomWorld, Tokens, plain_law, total_variation
from draftsmith.core.noise import CounterNoise, NoiseKeys
from draftsmith.core.tree_enumeration import DrawnTree, Shape, TreeCut, tree_round_law
from draftsmith.core.tree_verify import Judged, RecursiveRule, TraversalRule, TreeCheck, TreeRule
from draftsmith.core.trees import ROOT, ancestors
from draftsmith.core.verify import (
    BlockVerifier,
    Check,
    RejectionVerifier,
    ThresholdVerifier,
)
from tests.grids import beginning

VERIFIERS = [RejectionVerifier(), BlockVerifier()]
SHAPES: dict[str, list[int]] = {
    "2x2": [-1, -1, 0, 0, 1, 1],
    "2x1x1": [-1, -1, 0, 1, 2, 3],
    "3x2": [-1, -1, -1, 0, 0, 1, 1, 2, 2],
}


def distance(
    world: RandomWorld,
    verifier: ThresholdVerifier,
    shape: Shape | Sequence[int],
    history: Tokens = (),
    length: int = 3,
    **how: object,
) -> float:
    """TV between one round, continued by plain draws, and plain decoding."""
    law: dict[Tokens, float] = {}
    for tokens, mass in tree_round_law(world, verifier, shape, history, **how).items():  # pyright: ignore[reportArgumentType]
        rest = plain_law(world, length - len(tokens), (*history, *tokens))
        for tail, share in rest.items():
            law[(*tokens, *tail)] = law.get((*tokens, *tail), 0.0) + mass * share
    return total_variation(law, plain_law(world, length, history))


def a_small_world(seed: int) -> RandomWorld:
    return RandomWorld(seed, 3, (0.2, 0.6, 1.0)[seed % 3])


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
@pytest.mark.parametrize("chunk", beginning(range(20), 4))
@pytest.mark.parametrize("shape", SHAPES)
def test_one_round_has_the_targets_law_in_200_worlds(
    verifier: ThresholdVerifier, chunk: int, shape: str
) -> None:
    length = 4 if shape == "2x1x1" else 3
    for seed in range(10 * chunk, 10 * chunk + 10):
        history = (0, 1, 2, 0)[: seed % 5]
        found = distance(a_small_world(seed), verifier, SHAPES[shape], history, length)
        assert found <= EXACT, f"world {seed}"


def by_what_was_drawn(tree: DrawnTree) -> int | None:
    """Two children before the tree; behind the later id of the two one more, behind that two."""
    parents, tokens = tree
    if len(parents) < 2:
        return ROOT
    best = int(tokens[1] > tokens[0])
    if len(parents) == 2:
        return best
    return 2 if len(parents) < 3 + (tokens[2] != tokens[1 - best]) else None


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_a_shape_that_follows_what_was_drawn_before_is_exact(verifier: ThresholdVerifier) -> None:
    for seed in range(20):
        found = distance(a_small_world(seed), verifier, by_what_was_drawn, (), 4)
        assert found <= EXACT, f"world {seed}"


def repeated(law: Tensor, taken: Sequence[int]) -> Tensor:
    """Each child from the whole law: siblings may be equal."""
    del taken
    return law


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_children_drawn_with_replacement_are_exact_too(verifier: ThresholdVerifier) -> None:
    for seed in range(20):
        found = distance(a_small_world(seed), verifier, SHAPES["2x2"], siblings=repeated)
        assert found <= EXACT, f"world {seed}"


def test_traversal_of_a_chain_is_block_verification() -> None:
    verifier, chain = BlockVerifier(), [-1, 0, 1]
    for seed in range(6):
        world = a_world(seed)
        keys = NoiseKeys(torch.arange(20), torch.zeros(20, dtype=torch.long))
        noise = CounterNoise(keys, torch.full((20,), seed), torch.zeros(20, dtype=torch.long))
        texts: list[Tokens] = []
        for row in range(20):
            text: Tokens = ()
            for place in range(3):
                law = world.draft(text).unsqueeze(0).expand(20, -1)
                text = (*text, int(verifier.draw(law, noise, place)[row]))
            texts.append(text)
        drafts, targets = (
            torch.stack([torch.stack([law(text[:n]) for n in range(count)]) for text in texts])
            for law, count in ((world.draft, 3), (world.target, 4))
        )
        tokens = torch.tensor(texts)
        one = verifier.verify(Check(tokens, torch.full((20,), 3), drafts, targets), noise)
        other = verifier.verify_tree(TreeCheck(chain, tokens, drafts, targets), noise)
        assert one.num_accepted.tolist() == (other.ends + 1).tolist()
        last = one.tokens.gather(1, one.num_accepted.unsqueeze(1)).squeeze(1)
        assert last.tolist() == other.tokens.tolist()


def expected_tokens(world: RandomWorld, verifier: ThresholdVerifier, shape: Sequence[int]) -> float:
    law = tree_round_law(world, verifier, shape)
    return sum(len(tokens) * mass for tokens, mass in law.items())


def test_traversal_commits_more_than_recursive_rejection_and_both_more_than_a_chain() -> None:
    sums = {(verifier.name, width): 0.0 for verifier in VERIFIERS for width in (1, 2)}
    for seed in range(12):
        for verifier in VERIFIERS:
            for width, shape in ((1, [-1, 0]), (2, SHAPES["2x2"])):
                found = expected_tokens(a_small_world(seed), verifier, shape)
                sums[verifier.name, width] += found
    for width in (1, 2):
        assert sums["block", width] >= sums["rejection", width]
    for verifier in VERIFIERS:
        assert sums[verifier.name, 2] > sums[verifier.name, 1]


# --- planted faults ----------------------------------------------------------------------------


class Broken(ThresholdVerifier):
    """A verifier with another rule for trees."""

    name = "broken"
    takes_trees = True

    def __init__(self, rule: TreeRule) -> None:
        self.tree_rule = rule  # pyright: ignore[reportAttributeAccessIssue] # a class's, elsewhere

    def thresholds(self, check: Check) -> Tensor:
        raise AssertionError("trees only")

    def count(self, passed: Tensor) -> Tensor:
        raise AssertionError("trees only")

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        raise AssertionError("trees only")


class Wrapped(TreeRule):
    """A right rule, to be broken in one place."""

    def __init__(self, inner: TreeRule) -> None:
        self.inner = inner

    def judge(self, check: TreeCheck) -> Judged:
        return self.inner.judge(check)

    def end(self, parents: Sequence[int], passed: Tensor) -> Tensor:
        return self.inner.end(parents, passed)


class YoungestFirst(Wrapped):
    """Siblings are tested in another order than they were drawn in."""

    def judge(self, check: TreeCheck) -> Judged:
        order, parents = self._mirrored(check.parents)
        columns = torch.tensor(order)
        rows = torch.tensor([0, *(node + 1 for node in order)])
        mirrored = TreeCheck(
            parents,
            check.draft_tokens[:, columns],
            check.draft_probs[:, columns],
            check.target_probs[:, rows],
        )
        thresholds, laws = self.inner.judge(mirrored)
        return Judged(thresholds[:, columns.argsort()], laws[:, rows.argsort()])

    def end(self, parents: Sequence[int], passed: Tensor) -> Tensor:
        order, mirrored = self._mirrored(parents)
        ends = self.inner.end(mirrored, passed[:, torch.tensor(order)])
        return torch.tensor([*order, ROOT])[ends]

    def _mirrored(self, parents: Sequence[int]) -> tuple[list[int], list[int]]:
        """Nodes with each generation reversed, and their parents by the new numbers."""
        depths = [len(ancestors(parents, node)) for node in range(len(parents))]
        order = sorted(range(len(parents)), key=lambda node: (depths[node], -node))
        number = {ROOT: ROOT} | {node: place for place, node in enumerate(order)}
        return order, [number[parents[node]] for node in order]


class RowOffByOne(Wrapped):
    """A node is held against the law behind itself."""

    def judge(self, check: TreeCheck) -> Judged:
        rows = check.target_probs
        return self.inner.judge(
            check._replace(target_probs=torch.cat([rows[:, 1:], rows[:, -1:]], 1))
        )


class NotRenormalised(TreeRule):
    """What siblings have left is taken for a law as it is."""

    def judge(self, check: TreeCheck) -> Judged:
        thresholds = torch.zeros(check.draft_tokens.shape, dtype=torch.float64)
        laws = check.target_probs.clone()
        for row, children in enumerate(check.children()):
            law = check.target_probs[:, row]
            for node in children:
                thresholds[:, node] = check.share(law, node).clamp(max=1.0)
                law = (law - check.draft_probs[:, node]).clamp(min=0)
            mass = law.sum(-1, keepdim=True)
            laws[:, row] = torch.where(mass > 0, law / mass, check.target_probs[:, row])
        return Judged(thresholds, laws)

    def end(self, parents: Sequence[int], passed: Tensor) -> Tensor:
        return RecursiveRule().end(parents, passed)


class EmitsTheTarget(Wrapped):
    """Behind a rejected child, the whole law is drawn from."""

    def judge(self, check: TreeCheck) -> Judged:
        return self.inner.judge(check)._replace(laws=check.target_probs)


class AcceptsOnEquality(Broken):
    """`<=` in the place of `<`."""

    def passes(self, uniforms: Tensor, thresholds: Tensor) -> Tensor:
        return uniforms <= thresholds


class StopsAtTheRoot(Wrapped):
    """Traversal that does not raise a node's weight when a child of it has failed."""

    def judge(self, check: TreeCheck) -> Judged:
        judged = self.inner.judge(check)
        inner = [node for node in range(len(check.parents)) if node in check.parents]
        judged.thresholds[:, inner] = judged.thresholds[:, inner] * 0.9
        return judged


FAULTS: Mapping[str, ThresholdVerifier] = {
    f"{fault.__name__} in {rule.__class__.__name__}": (
        fault(rule) if issubclass(fault, Broken) else Broken(fault(rule))
    )
    for rule in (RecursiveRule(), TraversalRule())
    for fault in (YoungestFirst, RowOffByOne, EmitsTheTarget, AcceptsOnEquality)
} | {
    "NotRenormalised": Broken(NotRenormalised()),
    "StopsAtTheRoot": Broken(StopsAtTheRoot(TraversalRule())),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    found = (distance(a_small_world(seed), FAULTS[name], SHAPES["2x2"]) for seed in range(10))
    assert any(one > 1e-3 for one in found)


def likeliest(law: Tensor, taken: Sequence[int]) -> Tensor:
    """The next of the likeliest tokens, for certain."""
    left = law.clone()
    left[list(taken)] = -1.0
    return torch.nn.functional.one_hot(left.argmax(), len(law)).double()


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_likeliest_children_under_a_soft_law_are_caught(verifier: ThresholdVerifier) -> None:
    found = (
        distance(a_small_world(seed), verifier, SHAPES["2x2"], drawn_from=likeliest)
        for seed in range(10)
    )
    assert any(one > 0.01 for one in found)


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_likeliest_children_that_are_certain_are_exact(verifier: ThresholdVerifier) -> None:
    for seed in range(20):
        found = distance(a_small_world(seed), verifier, SHAPES["2x2"], siblings=likeliest)
        assert found <= EXACT, f"world {seed}"


def without_the_unlikely(tree: DrawnTree, laws: Sequence[Tensor]) -> list[int]:
    """Nodes whose token came with 0.3 or more, behind others like them: a look at the token."""
    parents, tokens = tree
    kept: list[int] = []
    for node, (parent, token) in enumerate(zip(parents, tokens, strict=True)):
        if (parent == ROOT or parent in kept) and float(laws[node][token]) >= 0.3:
            kept.append(node)
    return kept


def without_the_flat(tree: DrawnTree, laws: Sequence[Tensor]) -> list[int]:
    """Nodes whose law was not flat, whatever came of it."""
    kept: list[int] = []
    for node, parent in enumerate(tree[0]):
        if (parent == ROOT or parent in kept) and float(laws[node].max()) >= 0.5:
            kept.append(node)
    return kept


def without_the_flat_that_went_on(tree: DrawnTree, laws: Sequence[Tensor]) -> list[int]:
    """The same, unless the tree has ended early: a look at the law behind a token."""
    return list(range(len(laws))) if len(laws) < 4 else without_the_flat(tree, laws)


@pytest.mark.parametrize("fault", [without_the_unlikely, without_the_flat_that_went_on])
@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_a_cut_that_looks_at_a_drawn_token_is_caught(
    verifier: ThresholdVerifier, fault: TreeCut
) -> None:
    found = (
        distance(a_small_world(seed), verifier, [-1, 0, 0, 1], (), 4, cut=fault)
        for seed in range(10)
    )
    assert any(one > 0.01 for one in found)


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_a_cut_that_looks_at_what_was_drawn_before_is_exact(verifier: ThresholdVerifier) -> None:
    for seed in range(20):
        found = distance(a_small_world(seed), verifier, SHAPES["2x2"], cut=without_the_flat)
        assert found <= EXACT, f"world {seed}"
