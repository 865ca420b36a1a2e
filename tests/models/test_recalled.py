"""A text whose beginning was recalled has the logits of one that was read, bit for bit."""
# transformers' objects, which the models are made of, have looser annotations:
# pyright: basic

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import CacheSettings, LanguageModel, Rows
from draftsmith.models.follower import Follower
from tests import tiny
from tests.kernels.gpu.device import DEVICE
from tests.models.native.test_cpu import fast
from tests.models.native.test_gpu import fast_and_plain

TEXT = [(5 * i * i + 7 * i + 3) % tiny.VOCAB for i in range(110)]

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "cpu, float32": lambda: fast("llama, roomy"),
    "cpu, Q8_0 and rounded activations": lambda: fast("wide qwen2", "Q8_0"),
    "cpu, a window": lambda: fast("mistral"),
    "cpu, few ids": lambda: fast("llama, roomy", num_head_ids=16),
    "gpu": lambda: fast_and_plain("yarn")[0],
    "gpu, a window": lambda: fast_and_plain("mistral")[0],
}

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")


class Text(NamedTuple):
    id: int
    tokens: list[int]
    source: tuple[int, ...] = ()


def logits(follower: Follower, text: Text) -> Tensor:
    """After the last 20 tokens, all at once: the passes are the same, whoever read the rest."""
    begun = Text(text.id, text.tokens[:-20])
    follower.read(begun)
    feed = follower.catch_up(begun)
    return follower.forward([text], [[*feed, *text.tokens[-20:]]])[0]


def follower_of(model: LanguageModel, *, shares: bool) -> Follower:
    follower = Follower(model)
    follower.bound(CacheSettings(None, shares))
    return follower


@pytest.mark.parametrize("name", MODELS)
def test_a_recalled_beginning_changes_no_bit(name: str) -> None:
    model = MODELS[name]()
    want = logits(follower_of(model, shares=False), Text(0, TEXT))
    follower = follower_of(model, shares=True)
    # Another text that begins so, and goes on in another way.
    logits(follower, Text(1, [*TEXT[:75], *TEXT[:30]]))
    follower.release(1)
    found = logits(follower, Text(2, TEXT))
    assert follower.num_recalled(Text(2, TEXT)) == 64
    if model.device.type == "cpu" and name.startswith("gpu"):
        # The twins' products are torch's, which promise no bits from one number of rows to another.
        torch.testing.assert_close(found, want)
    else:
        assert torch.equal(found, want)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="a GPU's kernels")
def test_pages_are_shared_between_engines_of_one_model() -> None:
    model = fast_and_plain("yarn")[0]
    first, second = (follower_of(model, shares=True) for _ in range(2))
    want = logits(first, Text(0, TEXT))
    assert torch.equal(logits(second, Text(0, TEXT)), want)
    assert second.num_recalled(Text(0, TEXT)) == 64


def test_few_ids_are_those_of_the_text_itself() -> None:
    """Whatever stands beside it, and whatever was taken back: its laws are its own."""
    model = fast("llama", num_head_ids=16)
    follower = Follower(model)
    rare, other = Text(0, [3, 40, 5, 6]), Text(1, [3, 80, 5, 6])

    def ids(text: Text) -> set[int]:
        feed = [follower.catch_up(one) for one in (rare, other)]
        found = follower.forward([rare, other], feed)
        line = found[text.id, len(feed[text.id]) - 1]
        return {16 * (i // 16) for i in torch.nonzero(line > -torch.inf).flatten().tolist()}

    assert (ids(rare), ids(other)) == ({0, 32}, {0, 80})
    follower.forward([rare], [[70]])
    assert ids(rare) == {0, 32}, "70 was drafted, and rejected"


def test_few_ids_of_a_vocabulary_that_ends_within_a_tile() -> None:
    model = fast("llama, odd vocabulary", num_head_ids=16)
    cache = model.open_cache()
    rows = [cache.add(), cache.add()]
    found = model.forward(cache, Rows(rows, [[3, 92], [3, 50]]))
    alone = model.open_cache()
    for row, tokens in zip(rows, ([3, 92], [3, 50]), strict=True):
        assert torch.equal(found[row], model.forward(alone, Rows([alone.add()], [tokens]))[0])
