"""Trees on the C++ kernels: each token has the bits that it has at the end of its own chain."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import CacheSettings, Rows
from draftsmith.models.follower import Follower
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.cpu_cache import TILE, CpuCache
from draftsmith.testing import check_model
from tests import tiny
from tests.models.native.test_cpu import TOKENS, difference, fast, plain
from tests.models.native.test_poison import bits, poisoned
from tests.models.native.test_trees import BUSH, check, check_poison
from tests.models.test_follower import Text
from tests.models.trees import trees, way_to

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

HELD = [0, 1, 7, 15, 16, 17, 30, 63, 64, 65]
FAMILIES = ["llama", "wide qwen2", "qwen3", "mistral", "qwen2, sliding in one layer"]
KINDS = [(name, None) for name in FAMILIES] + [
    ("wide qwen2", format) for format in ("F16", "BF16", "Q8_0", "Q4_1")
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    cpu.set_num_threads(1)
    yield
    cpu.set_num_threads(1)
    cpu.set_instruction_set(None)


def text_of(length: int) -> list[int]:
    return TOKENS[:length]


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize(("name", "format"), KINDS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_token_of_a_tree_has_the_bits_of_its_chain(
    isa: str, name: str, format: str | None, data: st.DataObject
) -> None:
    cpu.set_instruction_set(isa)
    tree = data.draw(trees(40, tiny.VOCAB))
    held = text_of(data.draw(st.sampled_from(HELD)))
    leaf = data.draw(st.integers(0, len(tree.tokens) - 1))
    check(fast(name, format), held, tree, leaf, bits)


@pytest.mark.parametrize("past", HELD)
def test_keys_and_values_of_a_kept_path_have_the_bits_of_a_chain(past: int) -> None:
    model, way = fast("wide qwen2", "Q8_0"), way_to(BUSH.parents, 4)
    held = text_of(past)
    chain, tree = model.open_cache(), model.open_cache()
    rows = [cache.add() for cache in (chain, tree)]
    for cache, row in zip((chain, tree), rows, strict=True):
        model.extend(cache, row, held)
    model.extend(chain, rows[0], [BUSH.tokens[i] for i in way])
    model.forward(tree, Rows(rows[1:], [BUSH.tokens], [BUSH.parents]))
    tree.keep(rows[1], past, way)
    tree.check_integrity()
    assert tree.length(rows[1]) == chain.length(rows[0]) == past + len(way)
    for slot in range(past + len(way)):
        one, other = chain.row(rows[0]), tree.row(rows[1])
        at = (slice(None), slice(None), slot // TILE, slice(None), slot % TILE)
        assert torch.equal(one.keys[at], other.keys[at]), slot
        assert torch.equal(one.values[:, :, slot], other.values[:, :, slot]), slot


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("format", [None, "Q4_1"])
def test_threads_change_no_bit_of_a_tree(threads: int, format: str | None) -> None:
    model = fast("wide llama", format, threads=threads)
    check(model, text_of(65), BUSH, 5, bits)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("past", [1, 16, 64])
def test_a_tree_agrees_with_the_plain_decoder(name: str, past: int) -> None:
    parts = []
    for model in (fast(name), plain(name)):
        cache = model.open_cache()
        row = cache.add()
        model.extend(cache, row, text_of(past))
        parts.append(model.forward(cache, Rows([row], [BUSH.tokens], [BUSH.parents]))[0])
    assert difference(*parts) < 1e-5


@pytest.mark.parametrize("isa", cpu.instruction_sets())
def test_a_chain_that_is_called_a_tree_has_the_bits_of_a_chain(isa: str) -> None:
    cpu.set_instruction_set(isa)
    model = fast("wide qwen2", "Q8_0")
    caches = [model.open_cache(), model.open_cache()]
    rows = [cache.add() for cache in caches]
    chain = model.forward(caches[0], Rows(rows[:1], [TOKENS[:20]]))
    tree = model.forward(caches[1], Rows(rows[1:], [TOKENS[:20]], [list(range(-1, 19))]))
    assert torch.equal(chain, tree)


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", ["Q8_0", "F32"])
@pytest.mark.parametrize("poison", ["nan", "inf", "overflow"])
def test_poison_stays_in_its_branch(isa: str, format: str, poison: str) -> None:
    if (format, poison) == ("F32", "overflow"):
        pytest.skip("only the float16 cache overflows")
    cpu.set_instruction_set(isa)
    config, weights = poisoned("llama", format, poison)
    check_poison(CpuDecoder(weights, config), bits)


@pytest.mark.parametrize("leaf", [4, 5])
def test_a_reduced_head_computes_the_ids_of_a_tokens_own_way(leaf: int) -> None:
    model = fast("llama", num_head_ids=16)
    held = [1, 2, 3]
    cache = model.open_cache()
    row, beside = cache.add(), cache.add()
    model.extend(cache, row, held)
    model.extend(cache, beside, [60, 61])
    batch = Rows([row, beside], [BUSH.tokens, [70]], [BUSH.parents, [-1]])
    logits = model.forward(cache, batch)[0]

    def after(text: list[int]) -> torch.Tensor:
        other = model.open_cache()
        return model.forward(other, Rows([other.add()], [text]))[0, -1]

    for index in range(len(BUSH.tokens)):
        way = way_to(BUSH.parents, index)
        assert torch.equal(logits[index], after([*held, *(BUSH.tokens[i] for i in way)])), index
    way = way_to(BUSH.parents, leaf)
    cache.keep(row, len(held), way)
    cache.check_integrity()
    again = model.forward(cache, Rows([row], [[4]]))[0, -1]
    assert torch.equal(again, after([*held, *(BUSH.tokens[i] for i in way), 4]))


def test_others_share_only_what_is_a_text() -> None:
    """A row is closed behind a tree of which nothing was kept: its slots are no text's."""
    model = fast("llama, roomy")
    follower = Follower(model)
    follower.bound(CacheSettings(None, shares_prefixes=True))
    branching = Text(0, text_of(60))
    feed = [*follower.catch_up(branching), *TOKENS[60:75]]
    follower.forward([branching], [feed], [[-1, 0, 1, 1, *range(3, 15)]])
    follower.release(0)
    # This one begins with what lies in those slots.
    text = Text(1, [*text_of(75), 5])
    ours = follower.forward([text], [follower.catch_up(text)])[0, -1]
    other = Follower(model)
    assert torch.equal(ours, other.forward([text], [other.catch_up(text)])[0, -1])


def all_at_depth_of_slot(model: CpuDecoder) -> Any:
    """Planted: a tree is fed as a chain, so that a position is a slot and siblings are seen."""
    run = model._pass
    return lambda cache, batch, *places: run(cache, replace(batch, parents=None), *places)


@torch.inference_mode()
def values_alone(self: CpuCache, row: int, source: int, target: int) -> None:
    """Planted: values move, keys do not."""
    values = self._rows[row].values
    values[:, :, target] = values[:, :, source]


@torch.inference_mode()
def keys_alone(self: CpuCache, row: int, source: int, target: int) -> None:
    """Planted: keys move, values do not."""
    keys = self._rows[row].keys
    keys[:, :, target // TILE, :, target % TILE] = keys[:, :, source // TILE, :, source % TILE]


MOVES: dict[str, Callable[..., None]] = {
    "values alone": values_alone,
    "keys alone": keys_alone,
    "nothing": lambda *_: None,
}


@pytest.mark.parametrize("moved", MOVES)
def test_a_move_of_half_a_token_is_caught(moved: str) -> None:
    model = fast("llama")
    check(model, text_of(17), BUSH, 5, bits)
    with mock.patch.object(CpuCache, "_move", MOVES[moved]), pytest.raises(AssertionError):
        check(model, text_of(17), BUSH, 5, bits)


def test_a_tree_that_is_fed_as_a_chain_is_caught() -> None:
    model = fast("llama")
    check(model, text_of(17), BUSH, 5, bits)
    model._pass = all_at_depth_of_slot(model)
    with pytest.raises(AssertionError):
        check(model, text_of(17), BUSH, 5, bits)


class Earlier:
    """The library as it was built from earlier sources."""

    def __getattr__(self, name: str) -> Any:
        if name == "ds_pass_bytes":
            raise AttributeError(name)
        return getattr(cpu.library(), name)


class Shorter(Earlier):
    """One that knows of a pass, but not of all that this one says of it."""

    def __getattr__(self, name: str) -> Any:
        return (lambda: 88) if name == "ds_pass_bytes" else getattr(cpu.library(), name)


@pytest.mark.parametrize("library", [Earlier, Shorter])
def test_a_library_that_was_built_earlier_is_given_chains_alone(library: type) -> None:
    with mock.patch("draftsmith.models.native.cpu.library", library):
        model = fast("llama")
    assert (model.takes_trees, model.num_boundaries) == (False, 0)
    check_model(model)
    now = fast("llama")
    assert (now.takes_trees, now.num_boundaries) == (True, 3)
