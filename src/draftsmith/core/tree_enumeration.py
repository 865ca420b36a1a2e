"""The exact law of a round over trees of drawn tokens, summed over every tree and every draw.

As the enumeration of chains it runs the verifiers' own code on the cells of the uniforms.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.enumeration import Tokens, World, draw_cells
from draftsmith.core.tree_verify import TreeCheck, TreeRule, without
from draftsmith.core.trees import ROOT, ancestors
from draftsmith.core.verify import ThresholdVerifier

__all__ = ["DrawnTree", "Shape", "Siblings", "TreeCut", "tree_round_law"]

DrawnTree: TypeAlias = tuple[tuple[int, ...], Tokens]
"""Parents and tokens of a tree, in the order in which they were drawn."""
Shape: TypeAlias = Callable[[DrawnTree], int | None]
"""The parent of the token that is drawn next, by what was drawn before; None draws no more."""
TreeCut: TypeAlias = Callable[[DrawnTree, Sequence[Tensor]], Sequence[int]]
"""The nodes of a tree that are checked, given the tree and the laws of its tokens."""
Siblings: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor | None]
"""The law of a node's next child, by the draft's law there and the children before it."""


def tree_round_law(
    world: World,
    verifier: ThresholdVerifier,
    shape: Shape | Sequence[int],
    history: Tokens = (),
    siblings: Siblings = without,
    drawn_from: Siblings | None = None,
    cut: TreeCut | None = None,
) -> dict[Tokens, float]:
    """The law of the tokens that one round commits after `history`.

    Args:
        world: Both models.
        verifier: One that takes trees.
        shape: Where each token goes; or all parents, as they are whatever was drawn.
        history: What is committed.
        siblings: What each child is reported to be drawn from.
        drawn_from: What it is drawn from; None is `siblings`, as an honest drafter has it.
        cut: Which nodes of a tree are checked; None is all, as an honest drafter has it.
    """
    grow = shape if callable(shape) else _fixed(tuple(shape))
    table = _Table(world, history, siblings, drawn_from or siblings)
    trees_of = _trees(table, grow)
    if cut is not None:
        trees_of = _cut(table, trees_of, cut)
    law: dict[Tokens, float] = {}
    for parents, trees in trees_of.items():
        check = _check(table, parents, trees)
        masses = torch.tensor([mass for *_, mass in trees], dtype=torch.float64)
        for tokens, mass in _outcomes(verifier, check, masses):
            law[tokens] = law.get(tokens, 0.0) + mass
    return law


class _Table:
    """The laws of a round, each made once and known by its number from then on."""

    def __init__(
        self, world: World, history: Tokens, siblings: Siblings, drawn_from: Siblings
    ) -> None:
        self._world, self._history = world, history
        self._siblings, self._drawn_from = siblings, drawn_from
        self.laws: list[Tensor] = []
        self._numbers: dict[tuple[Tokens, Tokens | None], int | None] = {}
        self._shares: dict[tuple[Tokens, Tokens], list[tuple[int, float]]] = {}

    def target(self, path: Tokens) -> int:
        """The target's law behind a path."""
        number = self._numbered(path, None)
        assert number is not None
        return number

    def child(self, path: Tokens, taken: Tokens) -> int | None:
        """What the next child behind a path is reported to be drawn from."""
        return self._numbered(path, taken)

    def shares(self, path: Tokens, taken: Tokens) -> list[tuple[int, float]]:
        """The tokens that it may be, with their probabilities."""
        if (path, taken) not in self._shares:
            law = self._drawn_from(self._world.draft((*self._history, *path)), taken)
            masses = enumerate([] if law is None else law.tolist())
            self._shares[path, taken] = [(token, mass) for token, mass in masses if mass]
        return self._shares[path, taken]

    def _numbered(self, path: Tokens, taken: Tokens | None) -> int | None:
        if (path, taken) not in self._numbers:
            text = (*self._history, *path)
            if taken is None:
                law = self._world.target(text)
            else:
                law = self._siblings(self._world.draft(text), taken)
            if law is not None:
                self.laws.append(law)
            self._numbers[path, taken] = None if law is None else len(self.laws) - 1
        return self._numbers[path, taken]


class _Drawn(NamedTuple):
    """One tree."""

    tokens: Tokens
    laws: tuple[int, ...]
    """What each token was drawn from."""
    mass: float
    """The probability that it is drawn."""


def _fixed(parents: tuple[int, ...]) -> Shape:
    """A shape that was chosen beforehand; a child that no token is left for is left out."""

    def following(tree: DrawnTree) -> int | None:
        drawn = len(tree[0])
        return parents[drawn] if drawn < len(parents) else None

    return following


def _trees(table: _Table, grow: Shape) -> dict[tuple[int, ...], list[_Drawn]]:
    """Every tree that may be drawn, by its parents."""
    found: dict[tuple[int, ...], list[_Drawn]] = {}
    pending: list[tuple[tuple[int, ...], _Drawn]] = [((), _Drawn((), (), 1.0))]
    while pending:
        parents, (tokens, laws, mass) = pending.pop()
        parent = grow((parents, tokens))
        own, path, taken = None, (), ()
        if parent is not None:
            path = tuple(tokens[node] for node in ancestors(parents, parent))
            taken = tuple(tokens[node] for node, above in enumerate(parents) if above == parent)
            own = table.child(path, taken)
        if parent is None or own is None:
            # Nothing is left to draw at that place: the tree ends here.
            found.setdefault(parents, []).append(_Drawn(tokens, laws, mass))
            continue
        for token, share in table.shares(path, taken):
            longer = _Drawn((*tokens, token), (*laws, own), mass * share)
            pending.append(((*parents, parent), longer))
    return found


def _cut(
    table: _Table, trees_of: dict[tuple[int, ...], list[_Drawn]], cut: TreeCut
) -> dict[tuple[int, ...], list[_Drawn]]:
    """The trees as they are checked."""
    found: dict[tuple[int, ...], list[_Drawn]] = {}
    for parents, trees in trees_of.items():
        for tokens, laws, mass in trees:
            kept = cut((parents, tokens), [table.laws[number] for number in laws])
            number = {ROOT: ROOT} | {node: place for place, node in enumerate(kept)}
            left = _Drawn(tuple(tokens[n] for n in kept), tuple(laws[n] for n in kept), mass)
            found.setdefault(tuple(number[parents[n]] for n in kept), []).append(left)
    return found


def _check(table: _Table, parents: tuple[int, ...], trees: Sequence[_Drawn]) -> TreeCheck:
    places = [ancestors(parents, node) for node in range(ROOT, len(parents))]
    targets = [
        [table.target(tuple(one.tokens[node] for node in path)) for path in places] for one in trees
    ]
    laws, shape = torch.stack(table.laws), (len(trees), len(parents))
    drafts = torch.tensor([one.laws for one in trees], dtype=torch.long).view(shape)
    tokens = torch.tensor([one.tokens for one in trees], dtype=torch.long).view(shape)
    return TreeCheck(parents, tokens, laws[drafts], laws[torch.tensor(targets)])


def _outcomes(
    verifier: ThresholdVerifier, check: TreeCheck, masses: Float[Tensor, " trees"]
) -> list[tuple[Tokens, float]]:
    """What the verifier commits in each cell of its uniforms, and how likely that is."""
    assert verifier.tree_rule is not None
    thresholds = verifier.tree_rule.judge(check).thresholds
    cells = _cells(verifier.tree_rule, check.parents)
    # [cells, nodes]: 1 passes, 0 fails, -1 is not asked.
    pattern = torch.tensor(cells, dtype=torch.long).view(len(cells), len(check.parents))
    tests = thresholds.unsqueeze(1)
    weight = torch.where(pattern == 1, tests, torch.where(pattern == 0, 1 - tests, 1.0))
    # The left end of each cell, so that `u <= threshold` in the place of `u < threshold` is seen.
    accept = torch.where(pattern == 0, tests, 0.0)
    weight = (weight.prod(-1) * masses.unsqueeze(1)).flatten()
    rows = torch.arange(len(masses)).repeat_interleave(len(cells))[weight > 0]
    accept, weight = accept.flatten(0, 1)[weight > 0], weight[weight > 0]
    part = _take(check, rows)
    judged = verifier.tree_rule.judge(part)
    ends = verifier.tree_rule.end(check.parents, verifier.passes(accept, judged.thresholds))
    emitted = judged.laws[torch.arange(len(ends)), ends + 1]
    again, middles, share = draw_cells(emitted)
    verdict = verifier.decide_tree(_take(part, again), accept[again], middles)
    found = (weight[again] * share).tolist()
    columns = zip(
        part.draft_tokens[again].tolist(),
        verdict.ends.tolist(),
        verdict.tokens.tolist(),
        found,
        strict=True,
    )
    return [
        ((*(drafted[node] for node in ancestors(check.parents, end)), token), mass)
        for drafted, end, token, mass in columns
        if mass
    ]


def _take(check: TreeCheck, rows: Int[Tensor, " cells"]) -> TreeCheck:
    return TreeCheck(check.parents, *(part[rows] for part in check[1:]))


@lru_cache(maxsize=64)
def _cells(rule: TreeRule, parents: tuple[int, ...]) -> list[list[int]]:
    """The fewest tests that settle a verdict, each as what every node's test must come to."""
    count = len(parents)
    every = list(itertools.product((0, 1), repeat=count))
    passed = torch.tensor(every, dtype=torch.bool).view(len(every), count)
    ends = dict(zip(every, rule.end(parents, passed).tolist(), strict=True))

    def split(fixed: list[int]) -> list[list[int]]:
        free = [node for node, test in enumerate(fixed) if test < 0]
        inside = [
            one for one in every if all(f in (-1, t) for f, t in zip(fixed, one, strict=True))
        ]
        if len({ends[one] for one in inside}) == 1:
            return [fixed]
        halves = {
            node: [{ends[one] for one in inside if one[node] == test} for test in (0, 1)]
            for node in free
        }
        # A test of which one side settles everything comes first, else the first that matters.
        node = min(free, key=lambda n: (min(map(len, halves[n])), halves[n][0] == halves[n][1], n))
        return [
            cell
            for test in (0, 1)
            for cell in split([test if n == node else one for n, one in enumerate(fixed)])
        ]

    return split([-1] * count)
