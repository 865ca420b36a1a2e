"""The suffix automaton against a plain search."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.drafters.suffix_automaton import NOWHERE, Cursor, SuffixAutomaton

Place = tuple[int, int]
"""A document, and where in it."""


def ends_of(pattern: Sequence[int], documents: Sequence[Sequence[int]]) -> list[Place]:
    """Where a pattern ends, oldest first."""
    size = len(pattern)
    return [
        (number, end)
        for number, document in enumerate(documents)
        for end in range(size, len(document) + 1)
        if list(document[end - size : end]) == list(pattern)
    ]


def longest_end(text: Sequence[int], documents: Sequence[Sequence[int]]) -> list[int]:
    """The longest end of a text that occurs somewhere."""
    for start in range(len(text)):
        if ends_of(text[start:], documents):
            return list(text[start:])
    return []


def followed(pattern: Sequence[int], documents: Sequence[Sequence[int]]) -> list[Place]:
    """Those ends behind which the document goes on."""
    return [(d, end) for d, end in ends_of(pattern, documents) if end < len(documents[d])]


def check(
    automaton: SuffixAutomaton, text: Sequence[int], documents: Sequence[Sequence[int]]
) -> None:
    """Everything that the automaton says of a text is what a search finds."""
    check_context(automaton, automaton.find(text), text, documents)


def check_context(
    automaton: SuffixAutomaton,
    cursor: Cursor,
    text: Sequence[int],
    documents: Sequence[Sequence[int]],
) -> None:
    pattern = longest_end(text, documents)
    assert cursor[1] == len(pattern)
    while cursor[1]:
        pattern = list(text[len(text) - cursor[1] :])
        places = followed(pattern, documents)
        found = automaton.followers(cursor)
        counts = {documents[d][end] for d, end in places}
        assert sorted(token for token, _ in found) == sorted(counts)
        assert automaton.occurrences(cursor) == len(ends_of(pattern, documents))
        for token, times in found:
            assert times == len(ends_of([*pattern, token], documents))
        if places:
            number, end = places[-1]
            assert automaton.copied(cursor, 4) == list(documents[number][end : end + 4])
            assert found[0][0] == documents[number][end]
        cursor = automaton.shorter(cursor)


document = st.lists(st.integers(0, 2), max_size=14)


@settings(max_examples=300, deadline=None)
@given(st.lists(document, max_size=4), document)
def test_contexts_counts_and_copies_are_what_a_plain_search_finds(
    documents: list[list[int]], text: list[int]
) -> None:
    automaton = SuffixAutomaton()
    for one in documents:
        automaton.add(one)
    check(automaton, text, documents)


@settings(max_examples=200, deadline=None)
@given(document, st.lists(document, max_size=3))
def test_a_cursor_that_moves_along_knows_what_is_read_meanwhile(
    text: list[int], documents: list[list[int]]
) -> None:
    automaton = SuffixAutomaton()
    cursor = NOWHERE
    known: list[list[int]] = []
    for number, token in enumerate(text):
        if number < len(documents):
            automaton.add(documents[number])
            known.append(documents[number])
            # A longer match that only came now is not looked for: what is held stays true.
            held = automaton.settled(cursor)
            assert held == automaton.find(text[number - cursor[1] : number])
            cursor = automaton.find(text[:number])
        cursor = automaton.step(cursor, token)
    check_context(automaton, cursor, text, known)


@settings(max_examples=200, deadline=None)
@given(document)
def test_the_text_itself_matches_where_it_ran_like_this_before(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for token in text:
        automaton.append(token)
    cursor = automaton.shorter((automaton.last, len(text)))
    longest = next(
        (
            size
            for size in range(len(text) - 1, 0, -1)
            if len(ends_of(text[len(text) - size :], [text])) > 1
        ),
        0,
    )
    assert cursor[1] == longest
    if longest:
        end = followed(text[len(text) - longest :], [text])[-1][1]
        repeated = [*text[end:], *text[end:], *text[end:]]
        assert automaton.copied(cursor, 3) == repeated[:3]


@settings(max_examples=200, deadline=None)
@given(document, st.integers(0, 14), document)
def test_a_text_goes_on_from_a_place_before(text: list[int], length: int, rest: list[int]) -> None:
    automaton = SuffixAutomaton()
    states = [0]
    for token in text:
        automaton.append(token)
        states.append(automaton.last)
    kept = text[:length]
    automaton.go_to(states[len(kept)])
    for token in rest:
        automaton.append(token)
    whole = [*kept, *rest]
    assert automaton.find(whole)[1] == len(whole)
    cursor = automaton.shorter((automaton.last, len(whole)))
    while cursor[1]:
        pattern = whole[len(whole) - cursor[1] :]
        taken_back = followed(pattern, [text])
        found = {token for token, _ in automaton.followers(cursor)}
        assert found == {
            *(text[end] for _, end in taken_back),
            *(whole[end] for _, end in followed(pattern, [whole])),
        }
        cursor = automaton.shorter(cursor)


def test_no_match_runs_across_the_end_of_a_document() -> None:
    automaton = SuffixAutomaton()
    automaton.add([1, 2])
    automaton.add([3, 4, 5])
    assert automaton.find([2, 3])[1] == 1
    assert automaton.copied(automaton.find([1]), 5) == [2]
    assert automaton.copied(automaton.find([2]), 5) == []
    assert automaton.followers(automaton.find([2])) == []


def test_of_many_followers_the_newest_are_looked_at() -> None:
    automaton = SuffixAutomaton()
    automaton.add([one for token in range(10, 60) for one in (1, token)])
    found = [token for token, _ in automaton.followers(automaton.find([1]))]
    assert found[0] == 59
    assert len(found) == 6
    assert set(found[2:]) == {58, 57, 56, 55}


@settings(max_examples=100, deadline=None)
@given(st.lists(document, max_size=4))
def test_a_token_takes_two_states_at_most(documents: list[list[int]]) -> None:
    automaton = SuffixAutomaton()
    for before, after in pairwise(
        [0, *(automaton.add(one) or automaton.num_states for one in documents)]
    ):
        assert before <= after
    assert automaton.num_states <= 2 * sum(map(len, documents)) + 1
