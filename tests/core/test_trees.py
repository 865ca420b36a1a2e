"""Rung 0 for trees: by enumeration, a text that was walked through trees has the target's law."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core import trees
from draftsmith.core.trees import ROOT, Walk, along, ancestors, is_chain, nodes_tested, walk

VOCAB = 3
LENGTH = 3
Text = tuple[int, ...]
Tree = tuple[list[int], list[int]]
Walking = Callable[[Sequence[int], Sequence[int], Callable[[list[int]], int]], Walk]

SHAPES: dict[str, list[int]] = {
    "2x2": [-1, -1, 0, 0, 1, 1],
    "2x1x1": [-1, -1, 0, 1, 2, 3],
    "3x2": [-1, -1, -1, 0, 0, 1, 1, 2, 2],
    "chain": [-1, 0, 1],
    "nothing": [],
    "a comb": [-1, 0, 0, 2, 2],
}


def world(number: int) -> Callable[[Text], torch.Tensor]:
    """A law after every text; some tokens have no mass."""

    @cache
    def law(text: Text) -> torch.Tensor:
        state = number * 7919 + 13
        for token in text:
            state = (state * 31 + token + 1) % 104_729
        source = torch.Generator().manual_seed(state)
        raw = torch.rand(VOCAB, generator=source, dtype=torch.float64)
        raw[raw < 0.15] = 0.0
        return raw / raw.sum() if raw.sum() > 0 else torch.full_like(raw, 1 / VOCAB)

    return law


def tree_after(text: Text, parents: list[int], number: int) -> Tree:
    """Guesses that depend on the text and on nothing else; now and then two siblings are equal."""
    source = torch.Generator().manual_seed(number + 31 * len(text) + 1009 * sum(text))
    return torch.randint(VOCAB, (len(parents),), generator=source).tolist(), parents


def joint_plain(law: Callable[[Text], torch.Tensor]) -> dict[Text, float]:
    found: dict[Text, float] = {}
    for text in product(range(VOCAB), repeat=LENGTH):
        mass = 1.0
        for place, token in enumerate(text):
            mass *= float(law(text[:place])[token])
        found[text] = mass
    return found


def joint_walked(
    law: Callable[[Text], torch.Tensor], parents: list[int], number: int, walking: Walking = walk
) -> dict[Text, float]:
    """Every outcome of every round, each choice of the target taken by its mass."""
    found: dict[Text, float] = dict.fromkeys(product(range(VOCAB), repeat=LENGTH), 0.0)

    def play(text: Text, mass: float) -> None:
        if mass == 0:
            return
        if len(text) >= LENGTH:
            found[text[:LENGTH]] += mass
            return
        tokens, above = tree_after(text, parents, number)

        def outcomes(said: list[int], chance: float) -> None:
            """Go on behind these choices of the round, each of which was asked for."""
            left = iter(said)
            asked: list[list[int]] = []

            def choose(path: list[int]) -> int:
                asked.append(list(path))
                token = next(left, None)
                if token is None:
                    raise _Open
                return token

            try:
                path, token = walking(tokens, above, choose)
            except _Open:
                here = (*text, *(tokens[node] for node in asked[-1]))
                for token, share in enumerate(law(here).tolist()):
                    if share:
                        outcomes([*said, token], chance * share)
                return
            play((*text, *(tokens[node] for node in path), token), chance)

        outcomes([], mass)

    play((), 1.0)
    return found


class _Open(Exception):
    """A choice that was not made yet."""


def distance(one: dict[Text, float], other: dict[Text, float]) -> float:
    return sum(abs(one[text] - other[text]) for text in one) / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_the_text_has_the_targets_law_in_every_world(shape: str) -> None:
    for number in range(200 if shape in ("2x2", "2x1x1", "3x2") else 40):
        law = world(number)
        walked = joint_walked(law, SHAPES[shape], number)
        assert distance(walked, joint_plain(law)) < 1e-12, number


# --- planted faults ----------------------------------------------------------------------------


def says_at_the_parent(
    tokens: Sequence[int], parents: Sequence[int], choose: Callable[[list[int]], int]
) -> Walk:
    """The law of the row before is held against the children: a row off by one."""
    return walk(tokens, parents, lambda path: choose(path[:-1]))


def takes_any_sibling(
    tokens: Sequence[int], parents: Sequence[int], choose: Callable[[list[int]], int]
) -> Walk:
    """Where the target's token is no child, the first child is taken in its place."""
    path: list[int] = []
    while True:
        token = choose(path)
        here = [n for n, parent in enumerate(parents) if parent == (path[-1] if path else ROOT)]
        if not here:
            return Walk(path, token)
        path.append(next((node for node in here if tokens[node] == token), here[0]))


def asks_for_each_child(
    tokens: Sequence[int], parents: Sequence[int], choose: Callable[[list[int]], int]
) -> Walk:
    """Another draw for each sibling, until one fits."""
    path: list[int] = []
    while True:
        here = [n for n, parent in enumerate(parents) if parent == (path[-1] if path else ROOT)]
        node = next((node for node in here if choose(path) == tokens[node]), None)
        if node is None:
            return Walk(path, choose(path))
        path.append(node)


@pytest.mark.parametrize("fault", [says_at_the_parent, takes_any_sibling, asks_for_each_child])
def test_a_planted_fault_is_caught(fault: Walking) -> None:
    worst = max(
        distance(joint_walked(world(n), SHAPES["2x2"], n, fault), joint_plain(world(n)))
        for n in range(10)
    )
    assert worst > 0.01


# --- the parts ---------------------------------------------------------------------------------


@st.composite
def forests(draw: st.DrawFn) -> list[int]:
    count = draw(st.integers(0, 12))
    return [draw(st.integers(-1, node - 1)) for node in range(count)]


@given(forests(), st.data())
def test_a_path_goes_from_child_to_child_as_far_as_it_can(
    parents: list[int], data: st.DataObject
) -> None:
    tokens = [data.draw(st.integers(0, 2)) for _ in parents]
    said: dict[Text, int] = {}

    def choose(path: list[int]) -> int:
        assert tuple(path) not in said, "asked twice"
        said[tuple(path)] = data.draw(st.integers(0, 2))
        return said[tuple(path)]

    path, token = walk(tokens, parents, choose)
    assert path == (ancestors(parents, path[-1]) if path else [])
    assert [tokens[node] for node in path] == [said[tuple(path[:n])] for n in range(len(path))]
    last = path[-1] if path else ROOT
    assert token == said[tuple(path)]
    assert token not in [tokens[n] for n, parent in enumerate(parents) if parent == last]
    held = nodes_tested(parents, path)
    assert held[: len(path)] == path
    assert sorted(held) == [
        node for node, parent in enumerate(parents) if parent == ROOT or parent in path
    ]


@given(forests())
def test_chances_fall_along_every_path(parents: list[int]) -> None:
    found = along(parents, [0.5] * len(parents))
    assert found == [0.5 ** len(ancestors(parents, node)) for node in range(len(parents))]


def test_a_chain_is_told_from_a_tree() -> None:
    assert is_chain([])
    assert is_chain([-1, 0, 1])
    assert not is_chain([-1, 0, 0])
    assert not is_chain([-1, -1])
    assert trees.ROOT == -1
