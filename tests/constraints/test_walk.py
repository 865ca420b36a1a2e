"""A walk through a grammar says the same of a prefix however it has come there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.constraints.walk import Walk
from tests.constraints.kit import Listed, Text, listed

VOCAB = 6
"""Of which the last is in no text."""
ENDS = (4,)
texts = st.lists(st.integers(0, 3), max_size=5).map(tuple)
languages = st.sets(texts, min_size=1, max_size=6)
prefixes = st.lists(st.integers(0, 5), max_size=6)


def plain_masks(language: set[Text], tokens: list[int], rows: int) -> list[list[bool]]:
    """By the definition: every token in turn must be in the mask before it."""
    found: list[list[bool]] = []
    for length in range(len(tokens) - rows + 1, len(tokens) + 1):
        matcher, is_text = Listed(language, ENDS, VOCAB), True
        for token in tokens[:length]:
            is_text = is_text and token not in ENDS and bool(matcher.mask()[token])
            matcher.feed(token)
        found.append(matcher.mask().tolist() if is_text else [True] * VOCAB)
    return found


@given(languages, st.lists(st.tuples(prefixes, st.integers(1, 7)), min_size=1, max_size=8))
def test_masks_are_a_function_of_the_prefix(
    language: set[Text], queries: list[tuple[list[int], int]]
) -> None:
    walk = listed(language, ENDS, VOCAB)
    for tokens, most in queries:
        rows = min(most, len(tokens) + 1)
        assert walk.allowed(tokens, rows).tolist() == plain_masks(language, tokens, rows)


@given(languages, prefixes, st.integers(0, 6))
def test_forced_tokens_are_those_that_a_mask_leaves_alone(
    language: set[Text], tokens: list[int], most: int
) -> None:
    text = list(tokens)
    while len(text) < len(tokens) + most:
        [mask] = plain_masks(language, text, 1)
        if sum(mask) != 1:
            break
        text.append(mask.index(True))
    assert listed(language, ENDS, VOCAB).forced(tokens, most) == text[len(tokens) :]


@given(languages, prefixes, prefixes)
def test_drafts_count_up_to_the_first_that_its_mask_refuses(
    language: set[Text], tokens: list[int], drafted: list[int]
) -> None:
    text, count = list(tokens), 0
    for token in drafted:
        [mask] = plain_masks(language, text, 1)
        if all(mask) or not mask[token]:  # all: it is outside
            break
        text.append(token)
        count += 1
    assert listed(language, ENDS, VOCAB).num_allowed(tokens, drafted) == count


def test_what_a_matcher_would_swallow_is_refused_where_its_mask_does_not_hold_it() -> None:
    class Loose(Listed):
        """Like llguidance's: 0 stands for 1 2, which it takes as well."""

        def mask(self) -> torch.Tensor:
            mask = super().mask()
            return mask if not mask[0] else mask & (torch.arange(VOCAB) == 0)

    walk = Walk(lambda: Loose({(0, 3), (1, 2, 3)}, ENDS, VOCAB), frozenset(ENDS), VOCAB, "choice")
    assert walk.num_allowed([], [1, 2, 3]) == 0
    assert walk.num_allowed([], [0, 3, 4]) == 3
    assert walk.allowed([1], 2).tolist() == [[True, *[False] * (VOCAB - 1)], [True] * VOCAB]


def test_a_prefix_is_asked_about_once_while_the_text_goes_on() -> None:
    matcher = Listed({(0, 1, 2, 3), (0, 1, 3)}, ENDS, VOCAB)
    walk = Walk(lambda: matcher, frozenset(ENDS), VOCAB, "choice")
    for _ in range(3):
        assert walk.forced([], 4) == [0, 1]
        assert walk.num_allowed([0, 1], [2, 3, 4]) == 3
        walk.allowed([0, 1, 2, 3], 5)
    assert matcher.num_masks == 5


def test_masks_of_long_texts_are_not_kept_for_ever() -> None:
    text = (0,) * 500
    walk = listed({text}, ENDS, VOCAB)
    assert walk.forced([], 1000) == [*text, 4]
    assert len(walk._steps) < 100  # pyright: ignore[reportPrivateUsage]
    assert walk.allowed([0] * 10, 2)[0].tolist() == [True, *[False] * (VOCAB - 1)]


def test_a_grammar_that_leaves_nothing_says_so_in_one_line() -> None:
    assert "structured_outputs.choice" in listed({(0,)}, ENDS, VOCAB).complaint


class Limited(Listed):
    """Meets a limit behind any text with a 3 in it, when it is fed or when it is asked."""

    def __init__(self, language: set[Text], *, at_feed: bool) -> None:
        super().__init__(language, ENDS, VOCAB)
        self.at_feed = at_feed

    def feed(self, token: int) -> bool:
        assert not self.failure, "it is done with"
        super().feed(token)
        if token == 3 and self.at_feed:
            self.failure = "too much"
        return not self.failure

    def take_back(self, count: int) -> None:
        assert not self.failure, "it is done with"
        super().take_back(count)

    def mask(self) -> torch.Tensor:
        if 3 in self.fed:
            self.failure = "too much"
            return torch.zeros(VOCAB, dtype=torch.bool)
        return super().mask()


@pytest.mark.parametrize("at_feed", [True, False])
def test_a_draft_that_meets_a_limit_leaves_no_trace(at_feed: bool) -> None:
    language = {(0, 1, 2, 2), (0, 3, 1), (0, 1, 3, 0)}
    walk = Walk(lambda: Limited(language, at_feed=at_feed), frozenset(ENDS), VOCAB, "regex")
    for _ in range(2):
        assert walk.num_allowed([0], [3, 1]) == 1
        masks = walk.allowed([0, 3, 1], 3)
        assert masks.sum(-1).tolist() == [2, 0, 0]
        assert "regex cannot be followed any further (too much)" in walk.complaint
        assert walk.allowed([0, 1], 2).tolist() == plain_masks(language, [0, 1], 2)
        assert "too much" not in walk.complaint
        assert walk.forced([0, 1, 2], 5) == [2, 4]
