"""A GGUF file's tokenizer gives what its makers meant, or is refused by name."""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.gguf.alphabet import BYTES as ALPHABET
from draftsmith.models.gguf.special import end_token_ids
from draftsmith.models.gguf.tokenizer import GgufTokenizer, open_gguf_tokenizer
from draftsmith.models.gguf.vocabulary import read_vocabulary
from draftsmith.models.load import load_adapted_model, load_model, load_tokenizer
from tests.models.gguf.vocabularies import (
    BYTE,
    BYTES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    write,
)

SMOLLM2 = "smollm2-135m-instruct"
LETTERS = sorted(ALPHABET)
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "Ċ Ċ", "1 2", "Ġ Ġ"]
WORDS = [*LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
NUM_WORDS = len(WORDS)
SPECIALS = ["<bos>", "<eos>", "<user>"]
BOS, EOS, USER = range(NUM_WORDS, NUM_WORDS + 3)
PIECES = [*"▁Helo", "He", "ll", "Hell", "Hello", "▁H", "▁He", "▁Hell", "▁Hello"]


def byte_pair(
    folder: Path, *more: str, type: int = CONTROL, extra: Any = (), **keys: Any
) -> GgufTokenizer:
    """A byte-level vocabulary with three special tokens, and `more` of one type."""
    tokens = [*WORDS, *SPECIALS, *more]
    types = [NORMAL] * NUM_WORDS + [CONTROL] * 3 + [type] * len(more)
    options = {"bos_token_id": BOS, "eos_token_id": EOS, "pre": "gpt-2"} | keys
    return open_gguf_tokenizer(
        write(folder / "model.gguf", tokens, types, merges=[*MERGES, *extra], **options)
    )


def sentence_piece(folder: Path, *more: str, type: int = CONTROL, **keys: Any) -> GgufTokenizer:
    """A vocabulary like Llama 2's, and `more` tokens of one type."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *PIECES, *more]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(PIECES)]
    scores = [0.0] * 259 + [float(len(piece)) for piece in PIECES] + [0.0] * len(more)
    return open_gguf_tokenizer(
        write(folder / "model.gguf", tokens, [*types, *[type] * len(more)], scores=scores, **keys)
    )


def endings(folder: Path) -> tuple[int, ...]:
    return end_token_ids(read_vocabulary(folder / "model.gguf"))


def names(tokenizer: GgufTokenizer, tokens: list[int]) -> list[str]:
    return [tokenizer.token_strings()[token] for token in tokens]


# --- splits -----------------------------------------------------------------------------------


def test_the_name_of_a_split_decides_what_is_merged(tmp_path: Path) -> None:
    plain, digits = byte_pair(tmp_path, pre="gpt-2"), byte_pair(tmp_path, pre="smollm")
    assert names(plain, plain.encode("\n\n12")) == ["Ċ", "Ċ", "12"]
    assert names(digits, digits.encode("\n\n12")) == ["ĊĊ", "1", "2"]


def test_a_file_without_the_name_of_a_split_has_the_default_one(tmp_path: Path) -> None:
    nameless, default = byte_pair(tmp_path, pre=None), byte_pair(tmp_path, pre="default")
    for text in ("\n\n12", "a123456 b", "hello,, world"):
        assert nameless.encode(text) == default.encode(text)
    assert default.encode("1212") != byte_pair(tmp_path, pre="gpt-2").encode("1212")


@pytest.mark.parametrize("pre", ["smollm3", "GPT-2", "qwen2 "])
def test_an_unknown_split_is_refused_by_its_name(tmp_path: Path, pre: str) -> None:
    with pytest.raises(ModelFormatError, match=rf"tokenizer\.ggml\.pre is '{pre}'"):
        byte_pair(tmp_path, pre=pre)


# --- what comes before and after --------------------------------------------------------------


def test_the_name_of_a_split_may_put_a_token_before_each_text(tmp_path: Path) -> None:
    assert byte_pair(tmp_path, pre="llama-bpe").encode("hello")[0] == BOS
    assert byte_pair(tmp_path, pre="llama-bpe", add_bos_token=False).encode("hello")[0] != BOS
    assert byte_pair(tmp_path, pre="gpt-2").encode("hello")[0] != BOS
    assert byte_pair(tmp_path, pre="gpt-2", add_bos_token=True).encode("") == [BOS]
    assert byte_pair(tmp_path, add_eos_token=True).encode("")[-1] == EOS


def test_a_token_that_texts_get_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"no key tokenizer\.ggml\.bos_token_id"):
        byte_pair(tmp_path, pre="tekken", bos_token_id=None)


def test_some_splits_take_a_whole_word_before_its_merges(tmp_path: Path) -> None:
    plain = byte_pair(tmp_path, "zqxjk", type=NORMAL, pre="gpt-2")
    assert names(plain, plain.encode("zqxjk")) == list("zqxjk")
    whole = byte_pair(tmp_path, "zqxjk", type=NORMAL, pre="tekken")
    assert names(whole, whole.encode("zqxjk")[1:]) == ["zqxjk"]


# --- special tokens ---------------------------------------------------------------------------


def test_special_tokens_outside_the_alphabet_of_bytes_keep_their_ids(tmp_path: Path) -> None:
    user, bot = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
    template = "{{ bos_token }}{% for m in messages %}" + user + "{{ m.content }}{% endfor %}" + bot
    tokenizer = byte_pair(
        tmp_path, user, bot, pre="deepseek-r1-qwen", add_bos_token=True, chat_template=template
    )
    word = tokenizer.encode("hello")[1:]
    chat = tokenizer.encode_chat([{"role": "user", "content": "hello"}])
    assert chat == [BOS, BOS + 3, *word, BOS + 4]
    assert max(tokenizer.token_strings()) == BOS + 4


def test_the_longest_special_token_is_found_first(tmp_path: Path) -> None:
    tokenizer = byte_pair(tmp_path, "<a", "a<b>c")
    assert names(tokenizer, tokenizer.encode("<a<b>c")) == ["<", "a<b>c"]


def test_special_tokens_take_white_space_where_llama_cpp_knows_it(tmp_path: Path) -> None:
    def ids(name: str, text: str) -> list[str]:
        tokenizer = byte_pair(tmp_path, "<|user|>", "<|endoftext|>", "</s>", name=name)
        return names(tokenizer, tokenizer.encode(text))

    assert ids("Phi-3 mini", "<|user|> \n1") == ["<|user|>", "1"]
    assert ids("Phi-3 mini", "<|endoftext|> 1")[1] == "Ġ"
    assert ids("tiny", "<|user|> \n1")[1] == "Ġ"


def test_white_space_that_is_a_special_token_is_taken_by_the_one_before_it(tmp_path: Path) -> None:
    tokenizer = byte_pair(tmp_path, "    ", type=USER_DEFINED, name="phi3")
    assert names(tokenizer, tokenizer.encode("          1")) == ["    ", "1"]


def test_user_defined_tokens_are_found_and_shown(tmp_path: Path) -> None:
    tokenizer = byte_pair(tmp_path, "<h1>", type=USER_DEFINED)
    assert names(tokenizer, tokenizer.encode("<h1>hello<eos>")) == ["<h1>", "hello", "<eos>"]
    assert tokenizer.decode(tokenizer.encode("<h1>hello<eos>")) == "<h1>hello"


# --- SentencePiece ----------------------------------------------------------------------------


def test_a_space_comes_before_the_text_if_the_file_says_so(tmp_path: Path) -> None:
    tokenizer = sentence_piece(tmp_path)
    assert names(tokenizer, tokenizer.encode("Hello")) == ["<s>", "▁Hello"]
    assert names(tokenizer, tokenizer.encode(" Hello")) == ["<s>", "▁", "▁Hello"]
    bare = sentence_piece(tmp_path, add_space_prefix=False)
    assert names(bare, bare.encode("Hello")) == ["<s>", "Hello"]
    assert names(bare, bare.encode(" Hello")) == ["<s>", "▁Hello"]


def test_a_space_comes_after_each_special_token_too(tmp_path: Path) -> None:
    tokenizer = sentence_piece(tmp_path, "<x>")
    assert names(tokenizer, tokenizer.encode("Hello<x>Hello")) == [
        *("<s>", "▁Hello", "<x>", "▁Hello")
    ]


def test_of_equal_scores_the_leftmost_is_merged_first(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, "▁", "a", "b", "ab", "ba"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 5]
    path = write(tmp_path / "m.gguf", tokens, types, scores=[0.0] * len(tokens))
    tokenizer = open_gguf_tokenizer(path)
    assert names(tokenizer, tokenizer.encode("abab")[2:]) == ["ab", "ab"]
    assert names(tokenizer, tokenizer.encode("baba")[2:]) == ["ba", "ba"]


def test_a_character_without_a_token_is_its_bytes(tmp_path: Path) -> None:
    tokenizer = sentence_piece(tmp_path)
    ids = tokenizer.encode("é\n")
    assert names(tokenizer, ids) == ["<s>", "▁", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(ids) == "é\n"
    assert tokenizer.decode(ids[:3]) == "\N{REPLACEMENT CHARACTER}"


def test_a_space_within_a_token_is_found_across_words(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, "▁", "a", "a▁", "a▁a"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 4]
    scores = [0.0] * 259 + [0.0, 0.0, 1.0, 2.0]
    tokenizer = open_gguf_tokenizer(write(tmp_path / "m.gguf", tokens, types, scores=scores))
    assert names(tokenizer, tokenizer.encode("a a")) == ["<s>", "▁", "a▁a"]


# --- tokens in plain characters ---------------------------------------------------------------


def test_gemma_4_merges_plain_characters_and_keeps_runs_of_line_ends(tmp_path: Path) -> None:
    words = ["▁", "a", "▁a", "\n", "\n\n", "\n\n\n"]
    tokens = ["<pad>", "<eos>", "<bos>", *BYTES, *words]
    types = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * len(words)
    ends: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 1}
    path = write(tmp_path / "m.gguf", tokens, types, merges=["▁ a"], model="gemma4", **ends)
    tokenizer = open_gguf_tokenizer(path)
    assert names(tokenizer, tokenizer.encode("a a\n\n\né")) == [
        *("<bos>", "a", "▁a", "\n\n\n", "<0xC3>", "<0xA9>")
    ]
    assert tokenizer.decode(tokenizer.encode("a a\n\n\né")) == "a a\n\n\né"


# --- back to text -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[GgufTokenizer, GgufTokenizer]:
    folder = tmp_path_factory.mktemp("pair")
    return byte_pair(folder), sentence_piece(folder)


@settings(deadline=None)
@given(text=st.text(max_size=30))
def test_every_text_comes_back(pair: tuple[GgufTokenizer, GgufTokenizer], text: str) -> None:
    bytes, pieces = pair
    assert bytes.decode(bytes.encode(text)) == text
    assert pieces.decode(pieces.encode(text)) == text.replace("▁", " ")


def test_a_word_keeps_its_space_behind_another(tmp_path: Path) -> None:
    tokenizer = sentence_piece(tmp_path)
    hello = tokenizer.encode("Hello")[1]
    assert tokenizer.decode([hello, hello]) == "Hello Hello"
    assert tokenizer.decode([1, hello]) == "Hello"


def test_ids_that_stand_for_nothing_are_no_text(tmp_path: Path) -> None:
    assert byte_pair(tmp_path, "gone", type=UNUSED).decode([BOS + 3, 99_999]) == ""


def test_plain_text_outside_the_alphabet_of_bytes_is_shown_as_it_is(tmp_path: Path) -> None:
    assert byte_pair(tmp_path, "▁é", type=NORMAL).decode([BOS + 3]) == "▁é"


# --- where a text ends ------------------------------------------------------------------------


def test_a_text_ends_where_the_file_or_the_name_of_a_token_says(tmp_path: Path) -> None:
    byte_pair(tmp_path, "<|eot_id|>", "<|a|>", "<|b|>", "<|file_sep|>", eom_token_id=BOS + 4)
    assert endings(tmp_path) == (EOS, BOS + 4, BOS + 3, BOS + 6)


def test_a_token_of_plain_text_ends_nothing(tmp_path: Path) -> None:
    steps = ["< /", "</ s", "</s >"]
    tokenizer = byte_pair(tmp_path, "</", "</s", "</s>", type=NORMAL, extra=steps)
    assert endings(tmp_path) == (EOS,)
    assert tokenizer.decode(tokenizer.encode("a</s>")) == "a</s>"
    meant = byte_pair(tmp_path, "</s>", type=NORMAL)
    assert endings(tmp_path) == (EOS, BOS + 3)
    assert meant.decode(meant.encode("a</s>")) == "a"


def test_harmony_ends_at_a_return_or_a_call_but_not_at_each_part(tmp_path: Path) -> None:
    parts = ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"]
    tokenizer = byte_pair(tmp_path, *parts)
    assert endings(tmp_path) == (EOS, BOS + 3, BOS + 4)
    assert tokenizer.decode(tokenizer.encode("<|end|><|channel|>")) == "<|end|><|channel|>"


@pytest.mark.parametrize("loader", ["native", "adapted"])
def test_every_loader_gives_the_model_all_its_ends(
    tmp_path: Path, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    byte_pair(tmp_path, "<|eot_id|>", eot_token_id=BOS + 3)
    path = str(tmp_path / "model.gguf")
    load = load_model if loader == "native" else load_adapted_model
    assert load(path).traits.eos_token_ids == (EOS, BOS + 3)


# --- chats ------------------------------------------------------------------------------------


def test_templates_by_name_are_left_beside_the_usual_one(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hello"}]
    keys: dict[str, Any] = {"chat_template": "{{ eos_token }}", "chat_template.tool_use": "tools"}
    assert byte_pair(tmp_path, **keys).encode_chat(chat) == [EOS]
    del keys["chat_template"]
    lone = byte_pair(tmp_path, **keys)
    assert not lone.has_chat_template
    with pytest.raises(InvalidRequestError, match="chat template"):
        lone.encode_chat(chat)


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate at character 1"):
        byte_pair(tmp_path).encode("a\ud83d")


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"add_space_prefix": True}, "add_space_prefix is true"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces = True"),
        ({"normalizer.lowercase": True}, r"normalizer\.lowercase = True"),
        ({"suppress_tokens": [1, 2]}, "suppress_tokens"),
        ({"precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
        ({"my_option": 3}, r"tokenizer\.ggml\.my_option = 3 is not supported"),
        ({"model": "t5"}, r"tokenizer\.ggml\.model is 't5'"),
        ({"add_bos_token": 1}, "add_bos_token is 1, not true or false"),
        ({"eot_token_id": 9999}, r"eot_token_id is 9999, but the vocabulary has ids 0 to 2\d\d"),
        ({"fim_pad_token_id": 9999}, "fim_pad_token_id is 9999"),
        ({"rows": 10}, r"it has \d+ tokens, but token_embd\.weight has rows for 10"),
        ({"extra": ["x y"]}, "merges has 'x y', but the vocabulary has no token 'xy'"),
        ({"extra": ["xy"]}, "merges has 'xy', not two tokens"),
        ({"chat_template": 3}, "chat_template is 3, not a text"),
    ],
)
def test_what_we_cannot_honour_is_refused_by_its_name(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message):
        byte_pair(tmp_path, **keys)


def test_what_changes_nothing_is_no_reason_to_refuse(tmp_path: Path) -> None:
    harmless = {"add_sep_token": True, "token_type_count": 2, "remove_extra_whitespaces": False}
    wanted = byte_pair(tmp_path).encode("hello world")
    found = byte_pair(tmp_path, add_space_prefix=False, **harmless).encode("hello world")
    assert found == wanted != []


def test_a_token_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="the token 'hello' twice"):
        byte_pair(tmp_path, "hello", type=NORMAL)


def test_a_byte_that_is_spelled_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="its token 'x0A' is marked as a byte"):
        byte_pair(tmp_path, "x0A", type=BYTE)


def test_a_byte_without_a_token_is_refused_in_a_prompt(tmp_path: Path) -> None:
    tokens = [token for token in WORDS if token != "Ģ"]
    path = write(tmp_path / "m.gguf", tokens, merges=MERGES, pre="gpt-2")
    tokenizer = open_gguf_tokenizer(path)
    assert tokenizer.encode("hello") == [tokens.index("hello")]
    with pytest.raises(InvalidRequestError, match=r"the byte 0x80 .* has no token"):
        tokenizer.encode("hello€\u0080")


def test_a_file_without_a_vocabulary_or_merges_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", WORDS, model="gpt2", pre="gpt-2")
    with pytest.raises(ModelFormatError, match=r"no tokenizer\.ggml\.merges"):
        open_gguf_tokenizer(path)
    with pytest.raises(ModelFormatError, match=r"token_type has 2 values .* for 2\d\d tokens"):
        read_vocabulary(write(tmp_path / "n.gguf", WORDS, [1, 1], merges=MERGES))


# --- a real one -------------------------------------------------------------------------------


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
class TestRealModel:
    def test_line_ends_before_a_number_are_one_token(self) -> None:
        tokenizer = load_tokenizer(SMOLLM2)
        assert tokenizer.encode("\n\n1") == [1116, 33]
        assert tokenizer.encode("<|im_start|>user") == [1, 4093]

    def test_generating_imports_no_transformers(self) -> None:
        command = [sys.executable, "-c", PROGRAM, *REQUEST, "--target", SMOLLM2]
        options = ["--device", "cpu", "--threads", "1"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *written, imported = done.stdout.splitlines()
        assert written
        assert imported == "imported: []"


PROGRAM = """
import sys
from draftsmith.cli import main

try:
    main()
finally:
    print()
    unwanted = ("transformers", "huggingface_hub", "jinja2")
    print("imported:", [name for name in unwanted if name in sys.modules])
"""
REQUEST = ["generate", "one two one two", "--draft", "prompt-lookup", "--max-tokens", "4"]
