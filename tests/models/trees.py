"""Trees for tests, and what a model says of each token where its way is fed as a chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.models.contract import LanguageModel, Rows

__all__ = ["Tree", "alone", "trees", "way_to"]


@dataclass(frozen=True)
class Tree:
    """New tokens of a row, and what each follows."""

    tokens: list[int]
    parents: list[int]


@st.composite
def trees(draw: st.DrawFn, most: int, vocab_size: int) -> Tree:
    """Chains, bushes, combs and what is between them."""
    size = draw(st.integers(1, most))
    reach = draw(st.sampled_from([1, 2, 4, most]))
    parents = [draw(st.integers(max(-1, index - reach), index - 1)) for index in range(size)]
    ids = st.integers(0, vocab_size - 1)
    return Tree(draw(st.lists(ids, min_size=size, max_size=size)), parents)


def way_to(parents: Sequence[int], index: int) -> list[int]:
    """The tokens from what the row holds to one of a tree, itself included."""
    before = parents[index]
    return [*(way_to(parents, before) if before >= 0 else []), index]


def alone(model: LanguageModel, held: Sequence[int], tree: Tree) -> Tensor:
    """Logits after each token of a tree, each way through it fed as a chain."""
    cache = model.open_cache()
    row = cache.add()
    if held:
        model.extend(cache, row, held)
    logits = torch.empty(len(tree.tokens), model.traits.vocab_size)
    for leaf in set(range(len(tree.tokens))) - set(tree.parents):
        way = way_to(tree.parents, leaf)
        logits[way] = model.forward(cache, Rows([row], [[tree.tokens[i] for i in way]]))[0].float()
        cache.rollback(row, len(held))
    return logits
