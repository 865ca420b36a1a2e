"""The compiled memory of the free draft against the plain one: equal drafts, equal contents."""

import random
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.drafters.contract import CheckedText
from draftsmith.drafters.memory import Bounds, Memory, Text
from draftsmith.drafters.native_memory import NativeMemory, has_native
from draftsmith.drafters.plain_memory import PlainMemory

pytestmark = pytest.mark.skipif(not has_native(), reason="without the library")
Step: TypeAlias = tuple[int, int, list[int], int, float, bool]
"""A text's number, tokens that are taken back, new ones, a draft's size, its bound, its form."""


def steps(num_ids: int) -> st.SearchStrategy[list[Step]]:
    return st.lists(
        st.tuples(
            *(st.integers(0, 2), st.integers(0, 3)),
            st.lists(st.integers(0, num_ids), min_size=1, max_size=14),
            *(st.integers(1, 12), st.sampled_from([0.0, 0.02, 0.2]), st.booleans()),
        ),
        max_size=24,
    )


bounds = st.sampled_from([Bounds(), Bounds(tokens=20, contexts=6, text=16)])


class Both:
    """Two memories that live through the same."""

    def __init__(self, bounds: Bounds) -> None:
        self.memories: list[Memory] = [PlainMemory(bounds), NativeMemory(bounds)]
        self.texts: dict[int, tuple[list[int], list[Text]]] = {}

    def open(self, number: int, source: Sequence[int] = ()) -> None:
        self.texts[number] = [1], [one.open_text(source) for one in self.memories]

    def propose(self, step: Step) -> None:
        number, num_back, new, size, least, is_tree = step
        tokens, texts = self.texts[number]
        tokens[max(1, len(tokens) - num_back) :] = new
        plain, native = (one.propose(tokens, size, least, is_tree=is_tree) for one in texts)
        assert native[:2] == plain[:2]
        assert native.confidences == pytest.approx(plain.confidences, rel=0, abs=1e-12)
        # What a check of the draft might have shown, and a row less than it should.
        read = [tokens[-1], *plain.tokens]
        parents = [-1, *(parent + 1 for parent in plain.parents)]
        rows = [[(token + 7 * k) % 40 for k in range(1 + token % 9)] for token in read]
        checked = CheckedText(number, read, parents, rows[: len(rows) - size % 2])
        for memory in self.memories:
            memory.note(tokens[-2] if len(tokens) > 1 else -1, checked)

    def release(self, number: int) -> None:
        _, texts = self.texts.pop(number)
        for memory, text in zip(self.memories, texts, strict=True):
            memory.keep(text)

    def check(self) -> None:
        plain, native = (memory.contents() for memory in self.memories)
        for one, other in zip(plain[:-2], native[:-2], strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        for one, other in zip(plain[-2:], native[-2:], strict=True):
            assert np.allclose(one, other, rtol=0, atol=1e-12)


def live_through(both: Both, history: Sequence[Step], source: Sequence[int]) -> None:
    for step in history:
        number = step[0]
        if number not in both.texts:
            both.open(number, source)
        both.propose(step)
        if step[3] == 12:
            both.release(number)
    both.check()


@settings(max_examples=120, deadline=None)
@given(bounds, steps(3), st.lists(st.integers(0, 3), max_size=20))
def test_the_twins_say_the_same(bounds: Bounds, history: list[Step], source: list[int]) -> None:
    live_through(Both(bounds), history, source)


@settings(max_examples=30, deadline=None)
@given(bounds, steps(3), steps(3), st.booleans())
def test_the_twins_say_the_same_of_what_the_other_held(
    bounds: Bounds, before: list[Step], after: list[Step], is_forgotten: bool
) -> None:
    both = Both(bounds)
    live_through(both, before, ())
    plain, native = (memory.contents() for memory in both.memories)
    both.memories[0].hold(native)
    both.memories[1].hold(plain)
    if is_forgotten:
        for memory in both.memories:
            memory.forget()
    both.check()
    live_through(both, after, ())


def test_the_twins_say_the_same_where_a_token_is_followed_by_many() -> None:
    both = Both(Bounds())
    ways = list(chain.from_iterable((1, way, way % 7) for way in range(2, 60)))
    for turn in range(40):
        step = (turn % 2, 0, [*ways[3 * turn : 3 * turn + 40], 1], 8, 0.0, turn % 3 > 0)
        live_through(both, [step], ways)
    both.release(0)
    both.check()
    live_through(both, [(0, 0, [5, 1], 32, 0.0, True), (1, 0, [1, 2, 3], 64, 0.0, True)], [])


def test_the_twins_say_the_same_of_texts_that_repeat_a_token() -> None:
    both = Both(Bounds())
    source = random.Random(5)
    for turn in range(60):
        new = [source.randrange(3)] * source.choice([1, 2, 25, 40]) + [source.randrange(6)]
        live_through(both, [(turn % 2, 0, new, 10, 0.0, True)], [])
