"""A GGUF file's tokenizer in a folder of transformers means the same."""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.models.gguf.tokenizer import open_gguf_tokenizer
from draftsmith.models.load import load_tokenizer
from draftsmith.models.saved import save_folder
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary
from tests.models.gguf.test_tokenizer import MERGES, WORDS, byte_pair, sentence_piece
from tests.models.gguf.vocabularies import CONTROL, USER_DEFINED, write

TEXTS = [
    "hello world 1234",
    "<user>hello<eos> wo\n\n",
    "caf\u00e9  \U0001f642\t<tool>x",
    "",
    " <bos> ",
]
CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "wo"}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<user>{{ m.content }}{{ eos_token }}{% endfor %}"


def written(folder: Path, tokenizer: Tokenizer) -> Tokenizer:
    save_folder(folder, {"model_type": "llama"}, {}, tokenizer.as_files())
    return load_tokenizer(str(folder))


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"pre": "llama-bpe", "chat_template": TEMPLATE},
        {"pre": "qwen2", "add_bos_token": True, "add_eos_token": True},
        {"pre": "smollm", "chat_template": TEMPLATE, "chat_template.tool_use": "tools"},
    ],
)
@pytest.mark.parametrize("type", [CONTROL, USER_DEFINED])
def test_a_folder_means_what_the_file_means(
    tmp_path: Path, keys: dict[str, Any], type: int
) -> None:
    file = byte_pair(tmp_path, "<tool>", type=type, **keys)
    folder = written(tmp_path / "folder", file)
    check_same_vocabulary(file, folder, "file", "folder")
    assert folder.special_tokens() == file.special_tokens()
    for text in TEXTS:
        ids = file.encode(text)
        assert folder.encode(text) == ids
        assert folder.encode_plain(text) == file.encode_plain(text)
        assert folder.decode(ids) == file.decode(ids)
    assert folder.has_chat_template == file.has_chat_template
    if file.has_chat_template:
        assert folder.encode_chat(CHAT) == file.encode_chat(CHAT)


def test_a_byte_without_a_token_and_its_merges_stay_away(tmp_path: Path) -> None:
    tokens = [token for token in [*WORDS, "Ģh"] if token != "Ģ"]
    path = write(tmp_path / "m.gguf", tokens, merges=[*MERGES, "Ģ h"], pre="gpt-2")
    file = open_gguf_tokenizer(path)
    assert written(tmp_path / "folder", file).encode("hello") == file.encode("hello")


def test_words_spelled_in_plain_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"m.*\.gguf is spelled in plain characters"):
        sentence_piece(tmp_path).as_files()


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_so_it_is_with_a_real_model(tmp_path: Path) -> None:
    file = load_tokenizer("smollm2-135m-instruct")
    folder = written(tmp_path, file)
    check_same_vocabulary(file, folder, "file", "folder")
    for text in (*TEXTS, "<|im_start|>user\ndef f(x):\n    return 12345<|im_end|>\n\n1"):
        assert folder.encode(text) == file.encode(text)
    assert folder.encode_chat(CHAT) == file.encode_chat(CHAT)
    assert folder.spellings() == file.spellings()
