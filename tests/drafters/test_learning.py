"""What the free draft's parts keep: bounded, forgotten in order, and right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.drafters.evidence import Place, guesses_at
from draftsmith.drafters.growing_text import GrowingText
from draftsmith.drafters.odds import Odds
from draftsmith.drafters.shared_memory import MemoryReader, SharedMemory
from draftsmith.drafters.suffix_automaton import NOWHERE, SuffixAutomaton
from draftsmith.drafters.token_recycling import SuccessorTable
from draftsmith.errors import InvalidRequestError

document = st.lists(st.integers(0, 2), max_size=14)


def test_a_table_forgets_what_was_seen_longest_ago() -> None:
    table = SuccessorTable(most_contexts=10)
    for token in range(10):
        table.note(99, token, [token])
    table.note(99, 0, [50])
    table.note(99, 10, [10])
    assert table.after(99, 0) == ((50,), (50,)), "seen again"
    assert table.after(99, 1) == ((), ())
    assert table.after(99, 10) == ((10,), (10,))
    assert len(table) == 2 * 5


def test_a_table_never_holds_more_than_it_may() -> None:
    table = SuccessorTable(most_contexts=16)
    for step in range(500):
        table.note(step % 37, step * step % 101, range(20))
        assert len(table) <= 2 * 16
    assert max(map(len, table.after(499 % 37, 499 * 499 % 101))) == 8


def test_the_beginning_of_a_text_has_no_token_before() -> None:
    table = SuccessorTable()
    table.note(-1, 4, [5])
    assert table.after(-1, 4) == ((), (5,))


def test_sizes_below_two_are_refused() -> None:
    for make in (SuccessorTable, SharedMemory):
        with pytest.raises(InvalidRequestError, match="2 or more"):
            make(1)


def test_a_memory_drops_its_older_half() -> None:
    memory = SharedMemory(most_tokens=100)
    texts = [[1000 * number + step for step in range(30)] for number in range(12)]
    for text in texts:
        memory.add(text)
        held = len(memory.newer) + (0 if memory.older is None else len(memory.older))
        assert held <= 2 * 102
    for number, text in enumerate(texts):
        reader = MemoryReader(memory)
        reader.read(text[:5])
        automaton, cursor = reader.match
        copied = [] if automaton is None else automaton.copied(cursor, 3)
        assert copied == (text[5:8] if number >= 6 else []), number


def test_a_beginning_that_is_known_is_not_kept_twice() -> None:
    memory = SharedMemory()
    memory.add(range(1000))
    size = len(memory.newer)
    memory.add(range(1000))
    assert len(memory.newer) == size
    memory.add(range(1020))
    assert len(memory.newer) < size + 50
    memory.add([5000, *range(1000)])
    assert memory.newer.copied(memory.newer.find([5000]), 2) == [0, 1], "only the beginning counts"
    reader = MemoryReader(memory)
    reader.read(range(990, 1005))
    automaton, cursor = reader.match
    assert automaton is not None
    assert automaton.copied(cursor, 4) == [1005, 1006, 1007, 1008]


@settings(max_examples=200, deadline=None)
@given(st.lists(document, max_size=5), document, st.lists(st.integers(0, 14), max_size=14))
def test_a_reader_finds_what_a_new_one_finds(
    texts: list[list[int]], text: list[int], steps: list[int]
) -> None:
    # Texts are added and dropped while it reads, and tokens of its own text are taken back.
    memory = SharedMemory(most_tokens=20)
    reader = MemoryReader(memory)
    common = end = 0
    for number, step in enumerate([*steps, 14]):
        if number < len(texts):
            memory.add(texts[number])
        before, end = end, min(step, len(text))
        common = min(before, end)
        reader.read(text[:end], common)
        fresh = MemoryReader(memory)
        fresh.read(text[:end])
        # What came after it had read on may match longer: only what it holds must be true.
        automaton, cursor = reader.match
        if automaton is not None:
            assert automaton.find(text[end - cursor[1] : end]) == cursor
        assert cursor[1] <= fresh.match[1][1]
        if number >= len(texts) and common < before:
            assert cursor[1] == fresh.match[1][1]


@settings(max_examples=200, deadline=None)
@given(document, st.lists(st.tuples(st.integers(0, 14), document), max_size=4), document)
def test_a_growing_text_knows_itself_whatever_was_taken_back(
    text: list[int], rounds: list[tuple[int, list[int]]], source: list[int]
) -> None:
    growing = GrowingText()
    growing.read(text, source)
    for length, new in rounds:
        before, text = text, text[:length] + new
        same = growing.read(text, source)
        assert text[:same] == before[:same]
        assert growing.tokens == text
    plain = SuffixAutomaton()
    plain.add(source)
    for token in text:
        plain.append(token)
    assert growing.match[1] >= plain.shorter((plain.last, len(text)))[1]
    assert growing.automaton.find(text)[1] == len(text)


def test_a_growing_text_forgets_its_older_half() -> None:
    growing = GrowingText(most_tokens=100)
    text: list[int] = []
    for step in range(60):
        text = [*text, *range(1000 + 10 * step, 1010 + 10 * step)]
        growing.read(text, source=[7, 8, 9])
        assert len(growing.automaton) <= 105
    growing.read([*text, *text[-30:-25]])
    assert growing.automaton.copied(growing.match, 2) == text[-25:-23]
    growing.read([*text, *text[20:25]])
    assert growing.match[1] == 0, "forgotten"
    growing.read(text[:20])
    growing.read([*text[:20], *text[5:10]])
    assert growing.automaton.copied(growing.match, 2) == text[10:12], "read anew"


def test_one_row_behind_token_and_pair_is_two_equal_rows() -> None:
    table = SuccessorTable()
    table.note(1, 2, range(30, 38))
    (pair, single) = table.after(1, 2)
    assert pair is single
    pairs, tokens = (
        {key: (*row[:1], *row[1:]) for key, row in one.items()} for one in table.contexts()
    )
    apart = SuccessorTable.of(pairs, tokens)
    own, place = SuffixAutomaton(), Place(1, 2, NOWHERE, NOWHERE)
    assert guesses_at(place, own, None, table) == guesses_at(place, own, None, apart)
    assert len(set(guesses_at(place, own, None, table).values())) == 5, "ranks 4 to 7 are alike"


def test_odds_come_to_how_often_each_thing_comes_true() -> None:
    odds = Odds([0.0] * 6)
    for step in range(6000):
        rank = step % 3
        odds.learn((rank, 3 + step % 2), is_right=step // 6 % 10 < (9, 5, 1)[rank])
    for rank, share in enumerate((0.9, 0.5, 0.1)):
        for other in (3, 4):
            assert odds.chance((rank, other)) == pytest.approx(share, abs=0.06)


def test_a_shift_is_of_one_text() -> None:
    odds, shift = Odds([1.0]), 0.0
    for _ in range(100):
        shift = odds.learn((0,), is_right=True, shift=shift)
    assert shift > 0.4
    assert odds.chance((0,), shift) > odds.chance((0,)) > 0.6
