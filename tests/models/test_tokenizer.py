"""Text from token ids, piece by piece; and two vocabularies compared."""
# tokenizers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.models.hf.load import wrap_tokenizer
from draftsmith.models.tokenizer import Detokenizer, Message, Tokenizer, check_same_vocabulary
from tests import tiny

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
TEXTS = [
    "plain words, one after another",
    "naïve café — 100 €",
    "日本語の文章と漢字。",
    "🙂👩‍👩‍👧‍👦🇳🇴 family",
    "e\u0301e\u0301 combining a\u0308\u0323",
    "  two  spaces \n\n and lines\t",
    "עברית العربية हिन्दी",
]


@cache
def byte_level() -> Tokenizer:
    """Byte-level BPE, as GPT-2 has it: every byte is a token."""
    return wrap_tokenizer(tiny.raw_tokenizer())


@cache
def word_pieces() -> Tokenizer:
    """Words that carry their leading space, as SentencePiece has it; bytes for the rest."""
    words = ["▁hello", "▁world", "▁", "a", "b", "▁a", "ing"]
    special = ["<eos>", "<mark>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    vocab = {token: index for index, token in enumerate([*special, *words, *bytes_])}
    raw = RawTokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[attr-defined] # read-only in the stubs
    raw.decoder = decoders.Sequence(  # type: ignore[attr-defined] # read-only in the stubs
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    raw.add_special_tokens(special)
    return wrap_tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>"))


class Table(Tokenizer):
    """A vocabulary and nothing else."""

    def __init__(self, strings: dict[int, str]) -> None:
        self.strings = strings

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.strings[token] for token in tokens)

    def token_strings(self) -> dict[int, str]:
        return self.strings

    def special_tokens(self) -> dict[str, int]:
        return {}

    @property
    def has_chat_template(self) -> bool:
        return False


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """What streaming shows, the flush last."""
    detokenizer = Detokenizer(tokenizer)
    return [*[detokenizer.push(token) for token in tokens], detokenizer.flush()]


# --- the pieces are the text ----------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, tiny.VOCAB + 200), max_size=40))
def test_pieces_of_any_ids_join_to_the_whole_text(tokens: list[int]) -> None:
    assert "".join(pieces(byte_level(), tokens)) == byte_level().decode(tokens)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=30))
def test_pieces_join_where_words_carry_their_space_and_specials_are_left_out(
    tokens: list[int],
) -> None:
    assert "".join(pieces(word_pieces(), tokens)) == word_pieces().decode(tokens)


def test_a_word_after_a_special_token_keeps_its_space() -> None:
    # Decoded from the special token on, the word would lose its space.
    names = {name: token for token, name in word_pieces().token_strings().items()}
    tokens = [names["▁hello"], names["<mark>"], names["▁world"]]
    assert "".join(pieces(word_pieces(), tokens)) == "hello world"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_any_text_comes_back_whole_and_no_piece_ends_inside_a_character(text: str) -> None:
    tokenizer = byte_level()
    shown = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(shown) == text
    for piece in shown[:-1]:
        assert UNFINISHED not in piece.replace(UNFINISHED, "", text.count(UNFINISHED))


@pytest.mark.parametrize("text", TEXTS)
def test_multi_byte_text_is_never_split(text: str) -> None:
    tokenizer = byte_level()
    tokens = tokenizer.encode(text)
    shown = pieces(tokenizer, tokens)
    assert "".join(shown) == text
    assert UNFINISHED not in "".join(shown)
    assert shown[-1] == "", "a finished text leaves nothing to flush"
    assert any(not piece for piece in shown[:-1]) == (len(text.encode()) > len(text))


@pytest.mark.parametrize("text", TEXTS)
def test_byte_fallback_text_is_never_split(text: str) -> None:
    tokenizer = word_pieces()
    tokens = [
        token
        for value in text.encode()
        for token in [
            next(k for k, v in tokenizer.token_strings().items() if v == f"<0x{value:02X}>")
        ]
    ]
    shown = pieces(tokenizer, tokens)
    assert UNFINISHED not in "".join(shown)
    assert "".join(shown) == tokenizer.decode(tokens)


def test_a_character_of_four_tokens_comes_with_its_last_byte() -> None:
    tokenizer = byte_level()
    tokens = tokenizer.encode("🙂")
    assert len(tokens) == 4
    assert pieces(tokenizer, tokens) == ["", "", "", "🙂", ""]


def test_an_unfinished_character_is_shown_by_the_flush_alone() -> None:
    tokenizer = byte_level()
    tokens = [*tokenizer.encode("ok"), *tokenizer.encode("🙂")[:3]]
    shown = pieces(tokenizer, tokens)
    assert "".join(shown[:-1]) == "ok"
    assert shown[-1] == UNFINISHED
    assert "".join(shown) == tokenizer.decode(tokens)


def test_a_wrong_byte_is_shown_as_soon_as_the_next_character_comes() -> None:
    tokenizer = byte_level()
    tokens = [tokenizer.encode("🙂")[0], *tokenizer.encode("ok")]
    assert pieces(tokenizer, tokens)[1] == UNFINISHED + "o"


def test_bytes_that_never_become_text_hold_back_the_end_only() -> None:
    # A byte that spoils the character before it (in byte fallback they are read together).
    names = {name: token for token, name in word_pieces().token_strings().items()}
    spoilt = [*(names[f"<0x{value:02X}>"] for value in "€".encode()), names["<0xFF>"]]
    tokens = [*spoilt, *[names["a"]] * 20]
    shown = pieces(word_pieces(), tokens)
    assert shown[2] == "€"
    assert "".join(shown[4:-1]).endswith("a" * 19), "the stream must go on"
    assert "".join(shown).count("€") == 1
    assert "".join(shown).count("a") == 20


def test_flushing_twice_gives_the_end_once() -> None:
    detokenizer = Detokenizer(byte_level())
    for token in byte_level().encode("🙂")[:2]:
        detokenizer.push(token)
    assert detokenizer.flush() == UNFINISHED
    assert detokenizer.flush() == ""


# --- the adapter ----------------------------------------------------------------------------


def test_special_tokens_are_not_text() -> None:
    tokenizer = byte_level()
    assert tokenizer.decode([tiny.EOS, *tokenizer.encode("fox"), tiny.EOS]) == "fox"


def test_spaces_are_not_cleaned_up() -> None:
    tokenizer = byte_level()
    assert tokenizer.decode(tokenizer.encode("a , b . n't")) == "a , b . n't"


def test_a_text_that_a_tokenizer_cannot_encode_is_refused_in_one_line() -> None:
    raw = RawTokenizer(models.WordLevel({"fox": 0}, unk_token="<unk>"))
    tokenizer = wrap_tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw))
    for encode in (tokenizer.encode, tokenizer.encode_plain):
        with pytest.raises(InvalidRequestError, match=r"cannot encode the prompt .*: leave out"):
            encode("dog")


def test_a_chat_is_encoded_by_its_template() -> None:
    tokenizer = byte_level()
    names = tokenizer.token_strings()
    tokens = tokenizer.encode_chat([{"role": "user", "content": "fox"}])
    assert names[tokens[0]] == "<user>"
    assert names[tokens[-1]] == "<bot>"
    assert tokenizer.decode(tokens) == "fox"
    assert tokenizer.has_chat_template


def test_a_chat_without_a_template_is_refused() -> None:
    assert not word_pieces().has_chat_template
    with pytest.raises(InvalidRequestError, match="chat template"):
        word_pieces().encode_chat([{"role": "user", "content": "fox"}])


# --- vocabularies ---------------------------------------------------------------------------


def test_a_vocabulary_equals_itself() -> None:
    check_same_vocabulary(byte_level(), wrap_tokenizer(tiny.raw_tokenizer()), "big", "small")


def test_the_first_differing_id_is_named() -> None:
    target = Table({0: "a", 1: "b", 2: "c", 3: "d"})
    draft = Table({3: "x", 2: "y", 1: "b", 0: "a"})
    with pytest.raises(VocabularyMismatchError) as caught:
        check_same_vocabulary(target, draft, "big", "small")
    message = str(caught.value)
    assert "token 2 is 'y', not 'c'" in message
    assert "draft small" in message
    assert "target big" in message
    assert "\n" not in message


@pytest.mark.parametrize("extra", ["target", "draft"])
def test_ids_that_one_side_alone_knows_are_fine(extra: str) -> None:
    small, big = Table({0: "a", 1: "b"}), Table({0: "a", 1: "b", 2: "<pad>", 7: "<added>"})
    pair = (big, small) if extra == "target" else (small, big)
    check_same_vocabulary(*pair, "big", "small")
