"""The free drafter: what it copies, what it merges, what it learns and forgets."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.drafters import Draft, FreeDrafter, PromptLookupDrafter, SequenceView
from draftsmith.drafters.best_first import Sources, grow
from draftsmith.drafters.contract import CheckedText, DraftState
from draftsmith.drafters.evidence import FIRST_WEIGHTS, Place, guesses_at, next_place
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.suffix_automaton import NOWHERE, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable
from draftsmith.drafters.trees import Growth
from draftsmith.testing import check_drafter


@dataclass
class Round:
    """A context that nothing is drawn from."""

    sequences: Sequence[SequenceView]
    takes_trees: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def draw(
        self, rows: Sequence[int], logits: Tensor, confidences: Sequence[float] | None = None
    ) -> list[int]:
        raise AssertionError("nothing is drawn")

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Growth:
        raise AssertionError("this round grows no trees")

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        raise AssertionError("nothing is drawn")

    def drawn(self) -> Draft:
        raise AssertionError("nothing is drawn")

    def least_confidence(self, row: int) -> float:
        del row
        return 0.0

    def wanting(self, rows: Sequence[int]) -> list[int]:
        raise AssertionError("nothing is drawn")

    def states(self, row: int) -> Tensor:
        raise AssertionError("nothing is read of the target")


def view(tokens: Sequence[int], gamma: int = 4, id: int = 0) -> SequenceView:
    return SequenceView(id, tokens, 1, (), gamma)


@dataclass
class Tree:
    tokens: list[int]
    parents: list[int]
    sure: list[float]

    def path(self, node: int) -> tuple[int, ...]:
        above = self.parents[node]
        return (*(self.path(above) if above >= 0 else ()), self.tokens[node])

    def chance(self, node: int) -> float:
        above = self.parents[node]
        return self.sure[node] * (self.chance(above) if above >= 0 else 1.0)


def ask(state: DraftState, *views: SequenceView, takes_trees: bool = True) -> list[Tree]:
    draft = state.propose(Round(views, takes_trees))
    assert draft.probs is None
    assert draft.confidences is not None
    rows = [
        row[:length]
        for row, length in zip(draft.tokens.tolist(), draft.num_drafted.tolist(), strict=True)
    ]
    chains = [list(range(-1, len(row) - 1)) for row in rows]
    parents = chains if draft.parents is None else [list(one) for one in draft.parents]
    sure = [list(one) for one in draft.confidences]
    return [Tree(*parts) for parts in zip(rows, parents, sure, strict=True)]


def test_it_keeps_the_contract_of_drafters() -> None:
    check_drafter(FreeDrafter(), vocab_size=8, num_draws=64, is_reproducible=False)
    check_drafter(
        FreeDrafter(),
        vocab_size=300,
        gamma=16,
        num_draws=64,
        is_reproducible=False,
        is_encoder_decoder=True,
    )


LONG = list(range(100, 140))


@pytest.mark.parametrize("takes_trees", [True, False])
@pytest.mark.parametrize("gamma", [1, 4, 16, 32])
def test_a_long_match_is_copied_as_prompt_lookup_does(gamma: int, takes_trees: bool) -> None:
    text = [*LONG, 7, 8, 9, *LONG[:16]]
    lookup = PromptLookupDrafter().propose(Round([view(text, gamma)], takes_trees))
    (found,) = ask(FreeDrafter().open(), view(text, gamma), takes_trees=takes_trees)
    assert found.tokens == lookup.tokens[0].tolist()
    assert found.parents == list(range(-1, gamma - 1))
    assert min(found.sure) > 0.8


def test_a_text_that_repeats_itself_is_copied_beyond_its_end() -> None:
    text = [5, 6, 7] * 8
    (found,) = ask(FreeDrafter().open(), view(text, 16))
    assert found.tokens == ([5, 6, 7] * 6)[:16]


small = st.lists(st.integers(0, 3), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(small, st.lists(small, max_size=4), st.integers(0, 12), st.booleans())
def test_a_draft_is_a_tree_with_its_likeliest_nodes_first(
    text: list[int], rounds: list[list[int]], gamma: int, takes_trees: bool
) -> None:
    state = FreeDrafter().open()
    for new in [[], *rounds]:
        text = text + new
        (found,) = ask(state, view(text, gamma), takes_trees=takes_trees)
        assert len(found.tokens) <= gamma
        nodes = range(len(found.tokens))
        assert all(-1 <= found.parents[node] < node for node in nodes)
        assert len({found.path(node) for node in nodes}) == len(nodes)
        chances = [found.chance(node) for node in nodes]
        assert chances == sorted(chances, reverse=True)
        assert all(0 < sure < 1 for sure in found.sure)
        if not takes_trees:
            assert found.parents == list(range(-1, len(nodes) - 1))
        state.learn([CheckedText(0, [text[-1]], [-1], [[1, 2, 3]])])


def test_both_ways_that_a_text_went_are_tried() -> None:
    text = [1, 2, 3, 9, 1, 2, 4, 8, 1, 2]
    (found,) = ask(FreeDrafter().open(), view(text, 8))
    paths = {found.path(node) for node in range(len(found.tokens))}
    assert {(4,), (3,), (4, 8)} <= paths
    assert found.tokens[0] == 4, "the newest comes first"


def test_successors_of_rejected_rows_are_tried() -> None:
    state = FreeDrafter().open()
    assert ask(state, view([1, 2], 4))[0].tokens == []
    state.learn([CheckedText(0, [2, 50, 60], [-1, 0, 0], [[70, 71], [51, 52], [61, 62]])])
    # Since then the tokens were read elsewhere: only the pairs tell them apart.
    state.learn([CheckedText(7, [80, 50, 60], [-1, 0, 1], [[81], [82], [83]])])
    (found,) = ask(state, view([1, 2, 70, 2, 50], 8))
    assert found.tokens[0] == 51
    # Behind 2 the pair (2, 60) was checked as a sibling, and what follows is known of that, too.
    (found,) = ask(state, view([1, 2, 70, 2, 60], 8))
    assert found.tokens[0] == 61


def test_the_pair_is_believed_before_the_token() -> None:
    state = FreeDrafter().open()
    ask(state, view([1, 2], 4))
    state.learn([CheckedText(0, [2], [-1], [[30, 31]])])
    ask(state, view([5, 2], 4, id=1))
    state.learn([CheckedText(1, [2], [-1], [[40, 41]])])
    assert ask(state, view([9, 1, 2], 1, id=2))[0].tokens == [30]
    assert ask(state, view([9, 5, 2], 1, id=3))[0].tokens == [40]
    assert ask(state, view([9, 9, 2], 1, id=4))[0].tokens == [40]


def test_plain_rounds_teach_pairs_as_well() -> None:
    state = FreeDrafter().open()
    ask(state, view([3, 1], 0))
    for token, successor in ((1, 2), (2, 30), (30, 31)):
        state.learn([CheckedText(0, [token], [-1], [[successor]])])
    ask(state, view([8, 2], 0, id=1))
    state.learn([CheckedText(1, [2], [-1], [[40]])])
    assert ask(state, view([1, 2], 1, id=2))[0].tokens == [30]


def test_texts_that_have_ended_are_remembered_by_all_engines_until_they_are_forgotten() -> None:
    drafter = FreeDrafter()
    first, second = drafter.open(), drafter.open()
    ask(first, view(LONG, 4))
    assert ask(second, view([1, *LONG[:5]], 4, id=1))[0].tokens == []
    first.release(0)
    (found,) = ask(second, view([1, *LONG[:5]], 4, id=2))
    assert found.tokens == LONG[5:9]
    (found,) = ask(second, view([1, *LONG[:5], 0, *LONG[20:36]], 4, id=2))
    assert found.tokens == LONG[36:40], "a long match with a past text is copied"
    drafter.forget()
    assert ask(second, view([1, *LONG[:5]], 4, id=3))[0].tokens == []
    assert ask(second, view([1, *LONG[:6]], 4, id=2))[0].tokens == []


def test_tokens_that_are_taken_back_are_no_lesson() -> None:
    state = FreeDrafter().open()
    text = [1, 2, 3, 9, 1, 2]
    (before,) = ask(state, view(text, 1))
    (other,) = ask(state, view([1, 2, 3, 9, 1, 7, 8], 1))
    (after,) = ask(state, view(text, 1))
    assert other.tokens != before.tokens
    assert (after.tokens, after.sure) == (before.tokens, before.sure)


def test_the_same_history_leads_to_the_same_drafts() -> None:
    def run() -> list[Tree]:
        state = FreeDrafter().open()
        found: list[Tree] = []
        text = [1, 2, 3]
        for number in range(60):
            found += ask(state, view(text, 6))
            top = [(text[-1] * 7 + number % 3 + k) % 11 for k in range(4)]
            state.learn([CheckedText(0, [text[-1]], [-1], [top])])
            text = [*text, top[number % 2]]
        return found

    assert run() == run()


def noisy_cycle(length: int, chance: float) -> list[int]:
    """A cycle of 12 tokens, each of which is another one with the given probability."""
    source = random.Random(3)
    return [
        20 + source.randrange(30) if source.random() < chance else step % 12
        for step in range(length)
    ]


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.6])
def test_confidences_are_how_often_guesses_come_true(chance: float) -> None:
    state = FreeDrafter().open()
    text = noisy_cycle(1500, chance)
    said = right = count = 0.0
    for end in range(20, len(text)):
        (found,) = ask(state, view(text[:end], 1))
        if end > 500 and found.tokens:
            count += 1
            said += found.sure[0]
            right += found.tokens[0] == text[end]
    assert count > 300
    assert right / count > 0.05
    assert said / count == pytest.approx(right / count, abs=0.05)


def test_nothing_is_copied_where_nothing_is_wanted() -> None:
    text = [*LONG, 7, *LONG]
    for gamma in (0, 1):
        (found,) = ask(FreeDrafter().open(), view(text, gamma))
        assert len(found.tokens) == gamma
    automaton = SuffixAutomaton()
    automaton.add(LONG)
    assert automaton.copied(automaton.find(LONG[:4]), 0) == []


@settings(max_examples=100, deadline=None)
@given(small, st.integers(1, 9), st.sampled_from([0.02, 0.06, 0.2]))
def test_a_tree_is_what_a_search_over_all_paths_finds(
    text: list[int], size: int, least: float
) -> None:
    own = SuffixAutomaton()
    for token in text:
        own.append(token)
    table = SuccessorTable()
    for before, token in pairwise(text):
        table.note(before, token, [(token + 1) % 5, (before + token) % 5, 4])
    odds = Odds(FIRST_WEIGHTS)
    sources = Sources(own, None, table, odds, 0.3, least)
    place = Place(-1, text[-1], own.shorter((own.last, len(text))), NOWHERE)
    found = grow(sources, place, size)
    paths: dict[tuple[int, ...], float] = {}
    open_places = [((), 1.0, place)]
    for _ in range(size):
        deeper: list[tuple[tuple[int, ...], float, Place]] = []
        for path, chance, at in open_places:
            for token, known in guesses_at(at, own, None, table).items():
                longer = chance * odds.chance(known, 0.3)
                paths[(*path, token)] = longer
                if longer >= least:
                    deeper.append(((*path, token), longer, next_place(at, token, own, None)))
        open_places = deeper
    likeliest = sorted((one for one in paths.values() if one >= least), reverse=True)[:size]
    tree = Tree(found.tokens, found.parents, found.confidences)
    chances = [tree.chance(node) for node in range(len(found.tokens))]
    assert chances == pytest.approx(likeliest)
    assert chances == pytest.approx([paths[tree.path(node)] for node in range(len(chances))])


def test_a_node_must_be_worth_its_row_on_the_device() -> None:
    """A text that goes six ways from one token: each way once, and none of them likely."""
    text = [token for way in range(2, 8) for token in (1, way, 20 + way)] + [1]
    counts: dict[str, int] = {}
    for device in ("cpu", "meta"):
        context = Round([view(text, 32)], device=torch.device(device))
        draft = FreeDrafter().open().propose(context)
        assert draft.parents is not None
        assert draft.confidences is not None
        (tokens,) = draft.lists()
        tree = Tree(tokens, list(draft.parents[0]), list(draft.confidences[0]))
        chances = [tree.chance(node) for node in range(len(tokens))]
        assert min(chances) >= (0.06 if device == "cpu" else 0.02)
        counts[device] = len(tokens)
    assert 0 < counts["cpu"] < counts["meta"]


def test_a_replay_is_not_told_what_is_to_come() -> None:
    drafter = FreeDrafter()
    for number in range(3):
        for end in (3, 10, 30):
            draft = drafter.propose(Round([view(LONG[:end], 4, id=number)], takes_trees=False))
            assert draft.num_drafted.tolist() == [0]
    text = [*LONG[:16], 0, *LONG[:13]]
    draft = drafter.propose(Round([view(text, 3, id=9)], takes_trees=False))
    assert draft.tokens.tolist() == [LONG[13:16]]
    assert ask(drafter.open(), view(LONG[:5], 4))[0].tokens == []
