"""A follower whose rows branch: it goes on with what is kept, and with no more than a text."""
# transformers' objects, which the models are made of, have looser annotations:
# pyright: basic

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower
from tests import tiny
from tests.models.native.test_decoder import TOKENS, ours
from tests.models.test_contract import target


class Text(NamedTuple):
    id: int
    tokens: list[int]
    source: tuple[int, ...] = ()


def told(follower: Follower, text: Text) -> Tensor:
    """What the follower's model says after a text, which is fed as far as it is missing."""
    return follower.forward([text], [follower.catch_up(text)])[0, -1]


def opened(model: LanguageModel) -> Follower:
    """Followers of a text of 20 and one of 9, both read but for the newest token."""
    follower = Follower(model)
    for text in (Text(0, TOKENS[:20]), Text(1, TOKENS[:9])):
        follower.read(text)
    return follower


def check(follower: Follower, text: Text) -> None:
    """What comes next is what comes next without any tree, and only what is missing is fed."""
    expected = told(Follower(follower.model), text)
    assert torch.allclose(told(follower, text), expected, atol=1e-4, rtol=0)


BRANCHES = [-1, 0, 0, 2, 2]
"""The newest token, two that may follow it, and two that may follow the second."""


def branch(follower: Follower) -> None:
    texts = [Text(0, TOKENS[:20]), Text(1, TOKENS[:9])]
    feeds = [[*follower.catch_up(texts[0]), 3, 4, 5, 6], [*follower.catch_up(texts[1]), 7]]
    follower.forward(texts, feeds, [BRANCHES, [-1, 0]])


def test_a_row_goes_on_with_the_path_that_is_kept() -> None:
    follower = opened(ours("llama"))
    branch(follower)
    kept = Text(0, [*TOKENS[:20], 4, 6])
    follower.keep(kept, [0, 2, 4])
    follower.keep(Text(1, []), [0, 1])
    on = Text(0, [*kept.tokens, 8])
    assert follower.catch_up(on) == [8]
    check(follower, on)
    assert follower.catch_up(Text(1, [*TOKENS[:9], 7, 9])) == [9]
    check(follower, Text(1, [*TOKENS[:9], 7, 9]))


def test_a_row_of_which_nothing_is_kept_goes_on_with_what_it_held() -> None:
    follower = opened(ours("llama"))
    branch(follower)
    follower.keep(Text(0, []), [])
    assert follower.catch_up(Text(0, TOKENS[:20])) == TOKENS[19:20]
    check(follower, Text(0, TOKENS[:20]))


@pytest.mark.parametrize("coming", [[3], [4], [3, 4], [4, 5], [3, 4, 5, 6]])
def test_without_a_word_a_row_goes_on_with_the_stem(coming: list[int]) -> None:
    """Tokens of a tree lie beside each other like a text, and are none."""
    follower = opened(ours("llama"))
    branch(follower)
    text = Text(0, [*TOKENS[:20], *coming, 8])
    assert follower.catch_up(text) == [*([] if coming[0] == 3 else coming[:1]), *coming[1:], 8]
    check(follower, text)
    follower.read(text)
    check(follower, text)


def test_a_chain_is_kept_as_far_as_is_said() -> None:
    follower = opened(ours("llama"))
    text = Text(0, TOKENS[:20])
    follower.forward([text], [[*follower.catch_up(text), 3, 4, 5]])
    follower.keep(text, [0, 1, 2])
    assert follower.catch_up(Text(0, [*TOKENS[:20], 3, 4, 9])) == [9]
    check(follower, Text(0, [*TOKENS[:20], 3, 4, 9]))


def test_only_what_was_just_fed_can_be_kept() -> None:
    follower = opened(ours("llama"))
    branch(follower)
    text = Text(0, TOKENS[:20])
    for path in ([0, 1, 3], [1], [0, 4], [2, 0]):
        with pytest.raises(AssertionError):
            follower.keep(text, path)
    branch(follower)
    follower.keep(text, [0])
    with pytest.raises(AssertionError):
        follower.keep(text, [0])


def test_a_model_that_takes_no_trees_is_given_none() -> None:
    model = target("llama")
    assert not model.takes_trees
    follower = Follower(model)
    text = Text(0, [1, 2, 3])
    feed = follower.catch_up(text)
    with pytest.raises(AssertionError):
        follower.forward([text], [feed], [list(range(-1, len(feed) - 1))])
    assert follower.forward([text], [feed]).shape[-1] == tiny.VOCAB
