"""A kept tokenizer gives what the tokenizer of `transformers` gives, and does without it."""
# tokenizers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from draftsmith.errors import InvalidRequestError
from draftsmith.models.converted import converted_folder
from draftsmith.models.file_tokenizer import FileTokenizer, keep_tokenizer, open_tokenizer
from draftsmith.models.hf.gguf import load_gguf_tokenizer
from draftsmith.models.hf.tokenizer import TransformersTokenizer
from draftsmith.models.reference import local_path, resolve
from draftsmith.models.tokenizer import Tokenizer
from tests import tiny

SMOLLM2 = "smollm2-135m-instruct"
CHATS = [
    [{"role": "user", "content": "hello <eos> e\u0301"}],
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "  one "},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "🙂\n"},
    ],
]
PIECES = [
    *("<pad>", "<eos>", "<user>", "<mark>", "<eo", "s>", "<|im_end|>", "<|im_start|>", "<|im"),
    *(" ", "  ", "\n", "\r\n", "\t", "hello", " world", "Don't", " ,", " .", " n't", "1234", "▁"),
    *(
        "é",
        "e\u0301",
        "\u212b",
        "ﬁ",
        "日本語",
        "🙂",
        "👩‍👩‍👧‍👦",
        "\u200d",
        "\ufffd",
        "\x00",
        "עברית",
    ),
]
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


# --- tokenizers of every kind -----------------------------------------------------------------


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's; cleaning up is its default, which our contract forbids."""
    tokenizer = tiny.raw_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    return tokenizer


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2's: words carry their space, bytes for the rest, a bos before the text."""
    words = ["<s>", "<eos>", "<mark>", "▁hello", "▁world", "▁", "h", "e", "l", "o", "ing"]
    vocab = {word: i for i, word in enumerate([*words, *(f"<0x{i:02X}>" for i in range(256))])}
    raw: Any = Backend(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*fallback, decoders.Strip(content=" ", left=1)])
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    raw.add_special_tokens(words[:3])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<eos>")


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's: it folds case and accents, and loses what it does not know; cut and padded."""
    words = ["[UNK]", "<eos>", "<pad>", "hello", "world", "e", "##o", ",", ".", "n", "'", "##t"]
    raw: Any = Backend(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece(cleanup=False)
    raw.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A $B <eos>", special_tokens=[("<eos>", 1)]
    )
    raw.enable_truncation(3)
    raw.enable_padding(length=8, pad_id=2, pad_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="<eos>")


def qwen2() -> Qwen2Tokenizer:
    """A class that builds its own backend, and normalises what its saved file does not."""
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    extra = {"<|endoftext|>": 256, "<eos>": 257}
    tokenizer = Qwen2Tokenizer(vocab=vocab | extra, merges=[], eos_token="<eos>")
    tokenizer.backend_tokenizer.normalizer = None  # as the conversion of a GGUF file leaves it
    return tokenizer


class Uppercase(PreTrainedTokenizerFast):
    """A class that changes text after its backend has decoded it."""

    def _decode(self, *arguments: Any, **options: Any) -> str:
        return super()._decode(*arguments, **options).upper()


KINDS: list[Callable[[], Any]] = [byte_level, byte_fallback, word_pieces, qwen2]


def saved(make: Callable[[], Any], folder: Path) -> Path:
    """A GGUF file whose tokenizer was converted to this one."""
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF")
    make().save_pretrained(converted_folder(path))
    return path


Pair = tuple[TransformersTokenizer, FileTokenizer]


def opened(path: Path) -> Pair:
    """One tokenizer under both implementations, as the first load and the next ones give it."""
    first = TransformersTokenizer(load_gguf_tokenizer(path))
    kept = open_tokenizer(converted_folder(path))
    assert kept is not None
    return first, kept


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAFTSMITH_HOME", str(folder))
        yield opened(saved(request.param, folder))


@pytest.fixture(scope="module")
def real() -> Pair:
    path = local_path(resolve(SMOLLM2))
    assert path is not None
    return opened(path)


def assert_same(one: Tokenizer, other: Tokenizer, text: str) -> None:
    """Both encode a text alike, and decode what comes of it."""
    tokens = one.encode(text)
    assert other.encode(text) == tokens
    assert other.decode(tokens) == one.decode(tokens)


# --- equal to transformers --------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=8))
def test_any_text_has_the_same_ids_and_comes_back_the_same(pair: Pair, parts: list[str]) -> None:
    assert_same(*pair, "".join(parts))


@settings(max_examples=150, deadline=None)
@given(numbers=st.lists(st.integers(0, 400), max_size=12))
def test_any_ids_are_the_same_text(pair: Pair, numbers: list[int]) -> None:
    # Halves of characters, special tokens, and ids that stand for nothing.
    first, kept = pair
    assert kept.decode(numbers) == first.decode(numbers)


def test_the_names_of_all_ids_are_the_same(pair: Pair) -> None:
    first, kept = pair
    assert kept.token_strings() == first.token_strings()
    assert kept.has_chat_template == first.has_chat_template


def test_a_text_is_neither_cut_nor_padded(pair: Pair) -> None:
    first, kept = pair
    long = "hello " * 50
    assert 50 <= len(kept.encode(long)) == len(first.encode(long))
    assert len(kept.encode("e")) <= 3


def test_a_chat_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> PreTrainedTokenizerFast:
        tokenizer = byte_level()
        tokenizer.chat_template = (
            "{{ bos_token }}{% for m in messages %}"
            "{% if m.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
            "<user>{{ m.content }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}<bot>{% endif %}"
        )
        return tokenizer

    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    first, kept = opened(saved(make, tmp_path))
    for messages in CHATS:
        assert kept.encode_chat(messages) == first.encode_chat(messages)
    assert kept.encode_chat(CHATS[0])[-1] == kept.encode("<bot>")[0]
    for tokenizer in (first, kept):
        with pytest.raises(InvalidRequestError, match=r"template refuses .*: no such role"):
            tokenizer.encode_chat([{"role": "bad", "content": ""}])


def test_a_chat_without_a_template_and_half_a_character_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    _, kept = opened(saved(byte_fallback, tmp_path))
    assert not kept.has_chat_template
    with pytest.raises(InvalidRequestError, match="chat template"):
        kept.encode_chat(CHATS[0])
    with pytest.raises(InvalidRequestError, match="lone surrogate at character 1"):
        kept.encode("a\ud83d")


# --- what is kept, and when -------------------------------------------------------------------


def test_a_class_that_does_more_than_its_backend_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    path = saved(byte_level, tmp_path)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", Uppercase.from_pretrained)
    tokenizer = TransformersTokenizer(load_gguf_tokenizer(path))
    assert tokenizer.decode(tokenizer.encode("fox")) == "FOX"
    assert open_tokenizer(converted_folder(path)) is None


def test_special_tokens_that_are_read_as_text_are_not_left_to_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(
            tokenizer_object=byte_level().backend_tokenizer, split_special_tokens=True
        )

    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    path = saved(make, tmp_path)
    assert load_gguf_tokenizer(path).split_special_tokens
    assert open_tokenizer(converted_folder(path)) is None


def test_another_file_in_its_place_is_another_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    folders = {converted_folder(path)}
    os.utime(path, ns=(1, 1))
    folders.add(converted_folder(path))
    path.write_bytes(b"three")
    os.utime(path, ns=(1, 1))
    folders.add(converted_folder(path))
    monkeypatch.setattr("draftsmith.models.converted.version", lambda _: "0.0")
    folders.add(converted_folder(path))
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "converted"}


def test_the_installed_version_is_the_one_that_is_imported() -> None:
    assert version("transformers") == transformers.__version__


def test_nothing_is_left_of_writing_but_the_files(tmp_path: Path) -> None:
    backend = byte_level().backend_tokenizer
    keep_tokenizer(tmp_path, backend, None, {})
    keep_tokenizer(tmp_path, backend, None, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backend.json", "chat.json"]


# --- a real one -------------------------------------------------------------------------------


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
class TestRealModel:
    def test_texts_and_chats_are_the_same(self, real: Pair) -> None:
        first, kept = real
        chance = random.Random(7)
        for _ in range(1500):
            assert_same(first, kept, "".join(chance.choices(PIECES, k=chance.randrange(12))))
        assert_same(first, kept, Path(__file__).read_text(encoding="utf-8"))
        assert kept.token_strings() == first.token_strings()
        for messages in CHATS:
            assert kept.encode_chat(messages) == first.encode_chat(messages)

    def test_every_id_and_any_ids_are_the_same_text(self, real: Pair) -> None:
        first, kept = real
        ids, chance = sorted(kept.token_strings()), random.Random(7)
        several = [chance.choices(ids, k=chance.randrange(12)) for _ in range(1500)]
        for tokens in [*([i] for i in ids[::5]), *several, [ids[-1] + 9999]]:
            assert kept.decode(tokens) == first.decode(tokens)

    def test_generating_imports_no_transformers(self, real: Pair) -> None:
        command = [sys.executable, "-c", PROGRAM, *REQUEST, "--target", SMOLLM2]
        options = ["--device", "cpu", "--threads", "1"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *written, imported = done.stdout.splitlines()
        assert written
        assert imported == "imported: []"
