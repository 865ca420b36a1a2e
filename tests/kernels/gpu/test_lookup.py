"""Prompt lookup's kernel beside its twin, which keeps an index."""
# The drafter's inside is looked at:
# pyright: basic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from draftsmith.drafters.contract import SequenceView
from draftsmith.drafters.prompt_lookup import PromptLookupDrafter
from draftsmith.kernels.gpu import lookup, plain
from draftsmith.kernels.gpu.verdicts import State
from tests.kernels.gpu.device import DEVICE

CAPACITY = 40


def copies(look_up, texts: list[list[int]], gamma: int, ngrams: tuple[int, int], live: list[int]):
    """What is drafted for each text, the widths and the numbers; the kernel sees a full buffer."""
    batch = len(texts)
    history = torch.full((batch, CAPACITY), 1, dtype=torch.int32, device=DEVICE)
    for place, text in enumerate(texts):
        history[place, : len(text)] = torch.tensor(text, dtype=torch.int32)
    ints = [torch.zeros(batch, dtype=torch.int32, device=DEVICE) for _ in range(5)]
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int32, device=DEVICE)
    is_live = torch.tensor(live, dtype=torch.int32, device=DEVICE)
    tokens = torch.full((batch, gamma + 1), 7, dtype=torch.int32, device=DEVICE)
    look_up(history, State(lengths, ints[0], ints[1], is_live), tokens, ints[2], ints[3], ngrams)
    assert tokens[:, 0].tolist() == [7] * batch
    rows, nums = tokens[:, 1:].tolist(), ints[3].tolist()
    assert ints[2].tolist() == [one * (num + 1) for one, num in zip(live, nums, strict=True)]
    return [row[:num] for row, num in zip(rows, nums, strict=True)]


@pytest.fixture(autouse=True)
def _few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_PLACES", 16)


@settings(max_examples=25, deadline=None)
@given(some.lists(some.lists(some.integers(0, 2), min_size=2, max_size=39), min_size=1, max_size=3))
def test_copies_are_those_of_the_drafter(texts: list[list[int]]) -> None:
    for gamma, ngrams in ((1, (1, 3)), (4, (2, 16))):
        live = [1] * len(texts)
        found = copies(lookup.look_up, texts, gamma, ngrams, live)
        assert found == copies(plain.look_up, texts, gamma, ngrams, live)
        state = PromptLookupDrafter(*ngrams).open()
        for place, text in enumerate(texts):
            view = SequenceView(place, text, len(text), [], gamma)
            assert found[place] == state._copy(view)[0]


def test_padding_drafts_nothing() -> None:
    texts = [[1, 2, 1, 2], [1, 2, 1, 2]]
    for look_up in (lookup.look_up, plain.look_up):
        assert copies(look_up, texts, 3, (1, 4), [1, 0]) == [[1, 2], []]
