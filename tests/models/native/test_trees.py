"""Trees in the plain decoder: each token says what it says at the end of its own chain."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.models.contract import Rows
from draftsmith.models.native import tree_places
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.torch_cache import TorchCache
from draftsmith.testing import check_model
from tests import tiny
from tests.models.native.test_decoder import TOKENS, ours
from tests.models.native.test_poison import POISON, TEXT, poisoned
from tests.models.trees import Tree, alone, trees, way_to

NAMES = ("llama", "qwen2", "qwen3", "mistral", "qwen2, sliding in one layer", "yarn")
BUSH = Tree([3, 9, 27, 81, 5, 15, 45], [-1, 0, 0, 1, 3, 2, -1])


def held_of(length: int) -> list[int]:
    return [*TOKENS, *TOKENS][:length]


def is_near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=0)


def check(model: Any, held: Sequence[int], tree: Tree, leaf: int, is_same: Any) -> None:
    """A tree between two chains says what its ways say alone, and one of them is gone on with."""
    cache = model.open_cache()
    rows = [cache.add() for _ in range(3)]
    for row, text in zip(rows, (held[:5], held, held[:9]), strict=True):
        if text:
            model.extend(cache, row, text)
    chain = Tree(TOKENS[40:44], [-1, 0, 1, 2])
    batch = Rows(rows, [chain.tokens, tree.tokens, [7]], [chain.parents, tree.parents, [-1]])
    logits = model.forward(cache, batch)
    assert is_same(logits[1, : len(tree.tokens)], alone(model, held, tree))
    assert is_same(logits[0, :4], alone(model, held[:5], chain))
    assert is_same(logits[2, :1], alone(model, held[:9], Tree([7], [-1])))
    way = way_to(tree.parents, leaf)
    cache.keep(rows[1], len(held), way)
    assert cache.length(rows[1]) == len(held) + len(way)
    text = [*held, *(tree.tokens[index] for index in way)]
    rest = Tree([11, 12, 13], [-1, 0, 0])
    logits = model.forward(cache, Rows(rows[1:2], [rest.tokens], [rest.parents]))[0]
    assert is_same(logits, alone(model, text, rest))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_token_of_a_tree_says_what_its_chain_says(name: str, data: st.DataObject) -> None:
    tree = data.draw(trees(24, tiny.VOCAB))
    held = held_of(data.draw(st.sampled_from([0, 1, 15, 16, 17, 63])))
    check(ours(name), held, tree, data.draw(st.integers(0, len(tree.tokens) - 1)), is_near)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_the_contract_is_kept_with_trees(name: str) -> None:
    assert ours(name).takes_trees
    check_model(ours(name))


def test_a_chain_that_is_called_a_tree_has_the_bits_of_a_chain() -> None:
    model = ours("qwen3")
    caches = [model.open_cache(), model.open_cache()]
    rows = [cache.add() for cache in caches]
    chain = model.forward(caches[0], Rows(rows[:1], [TOKENS[:20]]))
    tree = model.forward(caches[1], Rows(rows[1:], [TOKENS[:20]], [list(range(-1, 19))]))
    assert torch.equal(chain, tree)


@pytest.mark.parametrize("poison", ["nan", "inf"])
def test_poison_stays_in_its_branch(poison: str) -> None:
    config, weights = poisoned("llama", None, poison)
    check_poison(TorchDecoder.from_weights(weights, config), is_near)


def check_poison(model: Any, is_same: Any) -> None:
    """Of [a, poison, b after a, c after the poison, d after b] all but the poison's are clean."""
    tree = Tree([TEXT[18], POISON, TEXT[19], TEXT[20], TEXT[20]], [-1, 0, 0, 1, 2])
    cache = model.open_cache()
    row = cache.add()
    model.extend(cache, row, TEXT[:18])
    logits = model.forward(cache, Rows([row], [tree.tokens], [tree.parents]))[0]
    clean = alone(model, TEXT[:18], Tree(TEXT[18:21], [-1, 0, 1]))
    assert is_same(logits[[0, 2, 4]], clean)
    assert bool(logits[[1, 3]].isnan().all())
    cache.keep(row, 18, [0, 2, 4])
    again = model.forward(cache, Rows([row], [TEXT[21:24]]))[0]
    assert is_same(again, alone(model, TEXT[:21], Tree(TEXT[21:24], [-1, 0, 1])))


def flat_positions(parents: Sequence[int]) -> list[int]:
    """Planted: a token's position is its slot's."""
    return list(range(len(parents)))


def all_before(parents: Sequence[int]) -> Tensor:
    """Planted: siblings are seen."""
    index = torch.arange(len(parents))
    return (index.unsqueeze(1) - index).clamp(min=-1)


@torch.inference_mode()
def values_stay(self: TorchCache, row: int, source: int, target: int) -> None:
    """Planted: keys move, values stay."""
    for buffer in self.buffers:
        buffer[:, :1, row, target] = buffer[:, :1, row, source]


PLANTED: dict[str, tuple[object, str, Callable[..., object]]] = {
    "position = slot": (tree_places, "depths_of", flat_positions),
    "a sibling is seen": (tree_places, "_steps", all_before),
    "values stay where they were": (TorchCache, "_move", values_stay),
    "nothing moves": (TorchCache, "_move", lambda *_: None),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault: str) -> None:
    check(ours("llama"), held_of(17), BUSH, 5, is_near)
    with mock.patch.object(*PLANTED[fault]), pytest.raises(AssertionError):
        check(ours("llama"), held_of(17), BUSH, 5, is_near)
    with mock.patch.object(*PLANTED[fault]), pytest.raises(AssertionError):
        check_model(ours("llama"))
