"""What llguidance's masks say, and that nothing of it depends on how a prefix was come to."""

import random
import threading
import time
from functools import cache

import pytest
import torch

from draftsmith.constraints import grammars
from draftsmith.constraints.grammars import Grammar, Grammars, grammars_of
from draftsmith.constraints.guidance import Guidance, GuidanceMatcher
from draftsmith.constraints.walk import Walk
from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from tests import tiny
from tests.constraints.kit import FORMS, SCHEMA, Bytes, model, tokenizer
from tests.engine.test_endings import Letters

VOCAB = len(tokenizer().token_strings())
ENDS = frozenset({tiny.EOS})
BYTES = Bytes()


@cache
def grammar(name: str) -> Grammar:
    return grammars_of(tokenizer(), VOCAB, ENDS).compiled(FORMS[name])


def accepts(form: StructuredOutputs, text: str) -> bool:
    """Whether a text can be written, byte by byte, and ended there."""
    walk = grammars_of(BYTES, 258, frozenset({BYTES.END})).compiled(form).begin()
    tokens = [*BYTES.encode_plain(text), BYTES.END]
    return walk.num_allowed([], tokens) == len(tokens)


def random_text(walk: Walk, rng: random.Random, most: int) -> list[int]:
    """Tokens that the masks allow, short of an end."""
    text: list[int] = []
    while len(text) < most:
        ids = sorted({*walk.allowed(text, 1)[0].nonzero().flatten().tolist()} - ENDS)
        if not ids:
            break
        text.append(rng.choice(ids))
    return text


@pytest.mark.parametrize("name", FORMS)
def test_masks_after_taking_back_are_those_of_a_new_walk(name: str) -> None:
    rng = random.Random(7)
    walk = grammar(name).begin()
    for _ in range(6):
        text = random_text(grammar(name).begin(), rng, 14)
        for _ in range(6):
            start = rng.randrange(len(text) + 1)
            wrong = [rng.randrange(VOCAB) for _ in range(rng.randrange(4))]
            tokens = [*text[:start], *wrong]
            rows = rng.randrange(1, len(tokens) + 2)
            expected = grammar(name).begin().allowed(tokens, rows)
            assert torch.equal(walk.allowed(tokens, rows), expected)
            assert walk.forced(tokens, 6) == grammar(name).begin().forced(tokens, 6)
            assert walk.num_allowed(text[:start], wrong) == (
                grammar(name).begin().num_allowed(text[:start], wrong)
            )


def test_a_forced_text_is_cut_as_the_tokenizer_cuts_it_and_in_no_other_way() -> None:
    text = "the quick brown fox"
    form = StructuredOutputs(choice=[text])
    walk = grammars_of(tokenizer(), VOCAB, ENDS).compiled(form).begin()
    own = tokenizer().encode_plain(text)
    assert walk.forced([], 40) == [*own, tiny.EOS]
    letters = [token for letter in text for token in tokenizer().encode_plain(letter)]
    assert len(letters) > len(own)
    assert walk.num_allowed([], letters) < len(letters)
    assert walk.num_allowed([], [*own, tiny.EOS]) == len(own) + 1


def test_letters_that_must_follow_are_guessed_where_their_cut_is_open() -> None:
    form = StructuredOutputs(regex="(a|b)quick(x|y)")
    walk = grammars_of(tokenizer(), VOCAB, ENDS).compiled(form).begin()
    [start] = tokenizer().encode_plain("a")
    found = walk.forced([start], 10)
    assert tokenizer().decode(found) == "quick"
    assert walk.num_allowed([start], found) == len(found)


def test_every_end_token_may_end_a_text_and_nothing_else_follows_it() -> None:
    ends = frozenset({0, 1})
    walk = grammars_of(tokenizer(), VOCAB, ends).compiled(FORMS["choice"]).begin()
    whole = tokenizer().encode_plain("jumps")
    assert set(walk.allowed(whole, 1)[0].nonzero().flatten().tolist()) == {0, 1}
    assert not walk.allowed([], 1)[0, [0, 1]].any()
    for end in ends:
        assert walk.num_allowed(whole, [end, end]) == 1
        assert walk.allowed([*whole, end], 1).all()


def test_rows_of_the_embedding_beyond_the_tokenizer_are_never_allowed() -> None:
    walk = grammars_of(tokenizer(), VOCAB + 40, ENDS).compiled(FORMS["object"]).begin()
    rng = random.Random(1)
    text = random_text(walk, rng, 20)
    assert not walk.allowed(text, len(text) + 1)[:, VOCAB:].any()


def test_a_tokenizer_may_have_more_tokens_than_the_model_has_rows() -> None:
    walk = grammars_of(BYTES, 200, frozenset({0})).compiled(FORMS["regex"]).begin()
    assert walk.allowed([], 1).shape == (1, 200)


def test_a_tokenizer_that_does_not_say_its_bytes_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"tokenizer does not tell: use a fast tokenizer"):
        grammars_of(Letters("a", "b"), 12, frozenset({0}))


# --- which texts a form takes: docs/structured.md lists these -------------------------------------

STRING = StructuredOutputs(json={"type": "string"})
NUMBER = StructuredOutputs(json={"type": "number"})
OPEN = StructuredOutputs(json={"type": "object", "properties": {"b": {}, "a": {}}})
COMPACT = StructuredOutputs(json=SCHEMA, disable_any_whitespace=True)
SPACED = StructuredOutputs(json=SCHEMA, whitespace_pattern=" ")
TEXTS: list[tuple[StructuredOutputs, str, bool]] = [
    (STRING, '"é"', True),
    (STRING, r'"\u00e9"', False),
    (STRING, r'"\u0001"', True),
    (STRING, '"/"', True),
    (STRING, r'"\/"', False),
    (STRING, r'"\n\t\"\\"', True),
    (STRING, '"\n"', False),
    (STRING, '"😀"', True),
    (STRING, r'"\ud83d\ude00"', False),
    (STRING, ' "a"', False),
    (STRING, '"a" ', False),
    (NUMBER, "-1.5e3", True),
    (NUMBER, "01", False),
    (NUMBER, ".5", False),
    (OPEN, '{"b":1,"a":2}', True),
    (OPEN, '{"a":2,"b":1}', False),
    (OPEN, '{"b":1,"c":3}', True),
    (OPEN, '{"c":3,"b":1}', False),
    (OPEN, "{\n  }", True),
    (COMPACT, '{"name":"x","old":true}', True),
    (COMPACT, '{"name": "x","old":true}', False),
    (SPACED, '{ "name" : "x" , "old" : true }', True),
    (SPACED, '{  "name":"x","old":true}', False),
    (StructuredOutputs(regex="[a-c]+"), "abc", True),
    (StructuredOutputs(regex="[a-c]+"), "abcd", False),
    (StructuredOutputs(regex=r"\d"), "٣", True),
    (StructuredOutputs(regex="."), "\n", False),
    (StructuredOutputs(choice=['a"\n', "b\\"]), 'a"\n', True),
    (StructuredOutputs(choice=['a"\n', "b\\"]), "b\\", True),
    (StructuredOutputs(choice=["a", "ab"]), "ab", True),
    (StructuredOutputs(choice=["a", "ab"]), "a", True),
    (StructuredOutputs(json_object=True), '{"x":[1,{"y":null}]}', True),
    (StructuredOutputs(json_object=True), "[1]", False),
]


@pytest.mark.parametrize(("form", "text", "is_taken"), TEXTS, ids=str)
def test_a_form_takes_what_the_page_says(
    form: StructuredOutputs, text: str, is_taken: bool
) -> None:
    assert accepts(form, text) is is_taken


# --- compiling ------------------------------------------------------------------------------------


def _never(guidance: Guidance, form: StructuredOutputs) -> GuidanceMatcher:
    raise AssertionError("compiled again")


def test_a_form_is_compiled_once_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    form = StructuredOutputs(regex="once(1|2)")
    first = grammars_of(tokenizer(), VOCAB, ENDS).compiled(form)
    monkeypatch.setattr(Guidance, "compile", _never)
    same = StructuredOutputs.from_value({"regex": "once(1|2)"})
    assert grammars_of(tokenizer(), VOCAB, ENDS).compiled(same) is first


def test_compiled_forms_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "_MOST_KEPT", 2)
    own = Grammars(tokenizer(), VOCAB, ENDS)
    forms = [StructuredOutputs(choice=[text]) for text in "abc"]
    compiled = [own.compiled(form) for form in forms]
    assert own.compiled(forms[2]) is compiled[2]
    assert own.compiled(forms[0]) is not compiled[0]


def test_what_takes_too_long_to_compile_is_refused_and_the_caller_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    own = Grammars(tokenizer(), VOCAB, ENDS)
    guidance = own._guidance  # pyright: ignore[reportPrivateUsage]
    compile_ = guidance.compile

    def slowly(form: StructuredOutputs) -> GuidanceMatcher:
        released.wait(20)
        return compile_(form)

    monkeypatch.setattr(guidance, "compile", slowly)
    monkeypatch.setattr(grammars, "COMPILE_LIMIT_S", 0.05)
    start = time.perf_counter()
    with pytest.raises(InvalidRequestError, match=r"regex takes more than 0\.05 s to compile"):
        own.compiled(StructuredOutputs(regex="slow"))
    assert time.perf_counter() - start < 10
    released.set()
    assert own.compiled(StructuredOutputs(choice=["a"])).begin().forced([], 1)


@pytest.mark.parametrize("length", [200, 6000])
def test_a_long_chain_of_rules_compiles(length: int) -> None:
    """A deeper one than this ends a process whose compiling thread has 8 MiB of stack."""
    rules = "\n".join(f"r{number}: r{number + 1}" for number in range(length))
    form = StructuredOutputs(grammar=f'start: r0\n{rules}\nr{length}: "jumps"')
    assert accepts(form, "jumps")
    assert not accepts(form, "jump")


def test_a_grammar_that_becomes_too_ambiguous_ends_its_text_alone() -> None:
    """Behind the first letter there are more ways to go on than the limit of items in a row."""
    ways = range(2500)
    rules = "\n".join(f'x{way}: "b" | "b" x{way}' for way in ways)
    hard = {"grammar": f'start: "a" way\nway: {" | ".join(f"x{way}" for way in ways)}\n{rules}'}
    params = [
        SamplingParams(structured_outputs=form, max_tokens=20)
        for form in (hard, {"choice": ["jumps"]})
    ]
    failed, fine = Engine(model(), tokenizer()).generate(["x", "x"], params)
    assert fine.text == "jumps"
    assert failed.error is not None
    assert failed.error.startswith("structured_outputs.grammar cannot be followed"), failed.error
    assert "\n" not in failed.error
    assert failed.text == "a"
