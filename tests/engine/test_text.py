"""The text of an output: its first space, and stop strings that are no text."""
# tokenizers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.result import FinishReason
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.tokenizer import Detokenizer, Tokenizer, decode_after, prompt_tail
from tests import tiny
from tests.engine.kit import text_model, text_tokenizer
from tests.models.test_tokenizer import byte_level, word_pieces

NAMES = {name: token for token, name in word_pieces().token_strings().items()}
HELLO, WORLD, MARK, END = (NAMES[name] for name in ("▁hello", "▁world", "<mark>", "<eos>"))


def spoken(token: int, size: int) -> LanguageModel:
    """A model of the word pieces; tests bias it to one token."""
    assert token < size
    return tiny.model("llama", 3, vocab_size=size)


# --- the first space --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([HELLO], " world"),
        ([HELLO, MARK], " world"),
        ([HELLO, *[MARK] * 20], " world"),
        ([MARK], "world"),
        ([END, MARK], "world"),
    ],
)
def test_a_completion_keeps_its_first_space_where_there_is_text_before_it(
    prompt: Sequence[int], text: str
) -> None:
    engine = Engine(spoken(WORLD, len(NAMES)), word_pieces())
    result = engine.generate(list(prompt), max_tokens=1, logit_bias={WORLD: 1000.0})[0]
    assert result.text == text
    assert word_pieces().decode(prompt) + text == word_pieces().decode([*prompt, WORLD])


@pytest.mark.parametrize("tokenizer", [word_pieces, byte_level], ids=["word pieces", "bytes"])
def test_prompt_and_completion_join_to_the_text_of_their_ids(tokenizer) -> None:
    words: Tokenizer = tokenizer()
    size = 9 if words is word_pieces() else 300

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.integers(0, size - 1), max_size=24),
        st.lists(st.integers(0, size - 1), max_size=8),
    )
    def check(prompt: list[int], output: list[int]) -> None:
        whole, before = words.decode([*prompt, *output]), words.decode(prompt)
        # A character that the prompt leaves open is finished by the output, and is its.
        before = before.rstrip("\N{REPLACEMENT CHARACTER}")
        if whole.startswith(before) and "\N{REPLACEMENT CHARACTER}" not in words.decode(prompt):
            assert before + decode_after(words, prompt, output) == whole

    check()


def test_streaming_and_the_whole_text_agree_on_the_first_space() -> None:
    engine = Engine(spoken(WORLD, len(NAMES)), word_pieces())
    bias = {WORLD: 1000.0}
    streamed = "".join(e.text for e in engine.stream([HELLO], max_tokens=3, logit_bias=bias))
    whole = engine.generate([HELLO], max_tokens=3, logit_bias=bias)[0]
    assert streamed == whole.text == " world world world"
    detokenizer = Detokenizer(word_pieces(), whole.completions[0].prompt_tail)
    assert "".join(map(detokenizer.push, whole.token_ids)) == whole.text


def test_an_answer_after_a_template_neither_gains_nor_loses_a_space() -> None:
    engine = Engine(text_model(), text_tokenizer())
    result = engine.generate([{"role": "user", "content": "the fox"}], max_tokens=6)[0]
    ids = [*result.prompt_token_ids, *result.token_ids]
    assert "the fox" + result.text == text_tokenizer().decode(ids)


def test_the_tail_of_a_prompt_reaches_back_to_where_there_is_text() -> None:
    assert prompt_tail(word_pieces(), [HELLO, *[MARK] * 20]) == (HELLO, *[MARK] * 20)
    assert len(prompt_tail(word_pieces(), [HELLO] * 30)) == 8
    assert prompt_tail(word_pieces(), []) == ()


# --- stop strings -----------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_stop_string_that_is_one_special_token_is_a_stop_id(gamma: int) -> None:
    bot = text_tokenizer().special_tokens()["<bot>"]
    draft = ModelDrafter(text_model()) if gamma else None
    engine = Engine(text_model(), text_tokenizer(), draft, gamma=gamma)
    options = {"logit_bias": {bot: 1000.0}, "max_tokens": 5}
    result = engine.generate([5, 6], stop="<bot>", **options)[0]
    assert result.token_ids == (bot,)
    assert result.finish_reason is FinishReason.STOP
    assert result.completions[0].stop_reason == bot
    several = engine.generate([5, 6], stop=["never", "<bot>"], **options)[0]
    assert several.token_ids == (bot,)
    later = engine.generate([5, 6], stop="<bot>", min_tokens=3, **options)[0]
    assert len(later.token_ids) == 4, "it is an ending like any other"


def test_a_stop_string_with_a_special_token_in_it_is_refused_with_the_remedy() -> None:
    engine = Engine(text_model(), text_tokenizer())
    bot = text_tokenizer().special_tokens()["<bot>"]
    with pytest.raises(InvalidRequestError) as caught:
        engine.generate([5, 6], stop=["fine", "<bot>\n"])
    assert repr("<bot>\n") in str(caught.value)
    assert f"stop_token_ids=[{bot}]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_special_tokens_are_those_that_decoding_leaves_out() -> None:
    for words in (text_tokenizer(), word_pieces()):
        specials = words.special_tokens()
        assert specials
        for name, token in specials.items():
            assert words.token_strings()[token] == name
            assert words.decode([token]) == ""


# --- bad words in letters ---------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, 2])
def test_a_bad_word_in_letters_never_occurs_with_a_space_before_or_without(gamma: int) -> None:
    draft = ModelDrafter(text_model()) if gamma else None
    engine = Engine(text_model(), text_tokenizer(), draft, gamma=gamma)
    whole = engine.generate("the fox", max_tokens=12, ignore_eos=True)[0]
    word = text_tokenizer().decode(whole.token_ids[2:3])
    cut = engine.generate("the fox", max_tokens=12, ignore_eos=True, bad_words=[word])[0]
    assert whole.token_ids[:2] == cut.token_ids[:2]
    assert whole.token_ids[2] not in cut.token_ids
    same = tuple(text_tokenizer().encode_plain(word))
    spaced = tuple(text_tokenizer().encode_plain(f" {word.lstrip()}"))
    by_ids = engine.generate("the fox", max_tokens=12, ignore_eos=True, bad_words=[same, spaced])[0]
    assert by_ids.token_ids == cut.token_ids


def test_bad_words_in_letters_need_a_tokenizer() -> None:
    with pytest.raises(InvalidRequestError, match="bad_words in letters need a tokenizer"):
        Engine(text_model()).generate([5, 6], bad_words=["word"])
