"""Prompt lookup against a brute-force reference, and case by case."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.drafters import Draft, PromptLookupDrafter, SequenceView
from draftsmith.drafters.trees import Growth
from draftsmith.errors import InvalidRequestError


@dataclass
class Round:
    """A context that nothing is drawn from."""

    sequences: Sequence[SequenceView]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    takes_trees: bool = False

    def states(self, row: int) -> Tensor:
        raise AssertionError("prompt lookup reads no states")

    def draw(
        self, rows: Sequence[int], logits: Tensor, confidences: Sequence[float] | None = None
    ) -> list[int]:
        raise AssertionError("prompt lookup draws nothing")

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Growth:
        raise AssertionError("this round grows no trees")

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        raise AssertionError("prompt lookup draws nothing")

    def drawn(self) -> Draft:
        raise AssertionError("prompt lookup draws nothing")

    def least_confidence(self, row: int) -> float:
        del row
        return 0.0

    def wanting(self, rows: Sequence[int]) -> list[int]:
        raise AssertionError("prompt lookup draws nothing")


def view(
    tokens: Sequence[int], gamma: int = 4, id: int = 0, source: Sequence[int] = ()
) -> SequenceView:
    return SequenceView(id, tokens, 1, source, gamma)


def drafts(drafter: PromptLookupDrafter, *views: SequenceView) -> list[list[int]]:
    draft = drafter.propose(Round(views))
    assert draft.probs is None, "a copy is certain"
    rows = zip(draft.tokens.tolist(), draft.num_drafted.tolist(), strict=True)
    return [row[:length] for row, length in rows]


def brute_force(text: Sequence[int], gamma: int, min_ngram: int, max_ngram: int) -> Sequence[int]:
    """What follows the longest earlier match of the end; the newest of equals."""
    for size in range(max_ngram, min_ngram - 1, -1):
        for end in range(len(text) - 1, size - 1, -1):
            if text[end - size : end] == text[len(text) - size :]:
                return text[end : end + gamma]
    return []


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(tokens, st.integers(0, 6), st.integers(1, 3), st.integers(0, 4))
def test_a_draft_is_what_a_plain_search_finds(
    text: list[int], gamma: int, min_ngram: int, wider: int
) -> None:
    drafter = PromptLookupDrafter(min_ngram, min_ngram + wider)
    expected = brute_force(text, gamma, min_ngram, min_ngram + wider)
    assert drafts(drafter, view(text, gamma)) == [expected]


@settings(max_examples=100, deadline=None)
@given(tokens, st.lists(tokens, max_size=5), st.lists(st.integers(0, 2), max_size=6))
def test_a_growing_index_finds_what_a_new_one_does(
    text: list[int], rounds: list[list[int]], source: list[int]
) -> None:
    drafter = PromptLookupDrafter(2, 5)
    for new in rounds:
        drafts(drafter, view(text, 3, source=source))
        text = text + new
    fresh = drafts(PromptLookupDrafter(2, 5), view(text, 3, source=source))
    assert drafts(drafter, view(text, 3, source=source)) == fresh
    assert fresh == [brute_force([*source, *text], 3, 2, 5)]


@settings(max_examples=100, deadline=None)
@given(tokens, st.lists(st.tuples(st.integers(0, 40), tokens), max_size=5))
def test_tokens_that_are_taken_back_leave_no_trace(
    text: list[int], rounds: list[tuple[int, list[int]]]
) -> None:
    # A drafter that is checked by another drafter sees its own rejected drafts go.
    drafter = PromptLookupDrafter(1, 4)
    for length, new in rounds:
        drafts(drafter, view(text, 3))
        text = text[:length] + new
    assert drafts(drafter, view(text, 3)) == [brute_force(text, 3, 1, 4)]


def test_the_longest_match_wins() -> None:
    #       match of 3 here ↓          of 2 here ↓
    text = [1, 2, 3, 50, 51, 9, 2, 3, 60, 61, 1, 2, 3]
    assert drafts(PromptLookupDrafter(2), view(text, 2)) == [[50, 51]]


def test_of_equal_matches_the_newest_wins() -> None:
    text = [1, 2, 50, 9, 1, 2, 60, 8, 1, 2]
    assert drafts(PromptLookupDrafter(2), view(text, 1)) == [[60]]


def test_matches_longer_than_max_ngram_are_equal() -> None:
    text = [7, 1, 2, 50, 9, 1, 2, 60, 7, 1, 2]
    assert drafts(PromptLookupDrafter(2, 3), view(text, 1)) == [[50]]
    assert drafts(PromptLookupDrafter(2, 2), view(text, 1)) == [[60]]


def test_a_match_shorter_than_min_ngram_is_not_followed() -> None:
    text = [2, 50, 51, 9, 2]
    assert drafts(PromptLookupDrafter(2), view(text)) == [[]]
    assert drafts(PromptLookupDrafter(1), view(text, 2)) == [[50, 51]]


def test_a_copy_runs_into_the_end_of_the_text_and_stops() -> None:
    assert drafts(PromptLookupDrafter(1), view([5, 6, 5], 4)) == [[6, 5]]


def test_nothing_is_wanted_and_nothing_drafted() -> None:
    assert drafts(PromptLookupDrafter(1), view([5, 5, 5], 0)) == [[]]


def test_the_source_of_an_encoder_decoder_is_searched() -> None:
    source = [10, 11, 12, 13, 14]
    assert drafts(PromptLookupDrafter(2), view([0, 11, 12], 2, source=source)) == [[13, 14]]


def test_each_sequence_has_its_own_text() -> None:
    drafter = PromptLookupDrafter(1)
    one, two = view([1, 50, 1], 1, id=1), view([1, 60, 1], 1, id=2)
    assert drafts(drafter, one, two) == [[50], [60]]
    assert drafts(drafter, two, one) == [[60], [50]]
    assert drafts(drafter, two) == [[60]]
    assert drafts(drafter, view([1, 70, 1], 1, id=3), one) == [[70], [50]]


def test_the_index_of_a_sequence_that_is_gone_is_dropped() -> None:
    drafter = PromptLookupDrafter(1)
    drafts(drafter, view([1, 50, 1], 1, id=1))
    drafts(drafter, view([1, 60, 1], 1, id=2))
    # The same number again: it was never used twice, but it shows what is remembered.
    assert drafts(drafter, view([1, 9, 9], 1, id=1)) == [[9]]
    state = drafter.open()
    state.propose(Round([view([1, 50, 1], 1, id=1), view([1, 60, 1], 1, id=2)]))
    state.release(2)
    held = state._indices  # pyright: ignore[reportPrivateUsage] # memory is the point
    assert list(held) == [1]


@pytest.mark.parametrize(("low", "high"), [(0, 3), (4, 3), (-1, 2)])
def test_sizes_that_mean_nothing_are_refused(low: int, high: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"min_ngram must be .* got {low}"):
        PromptLookupDrafter(low, high)
