"""For every split, llama.cpp's own ids: those that were written down, and new ones where it is."""
# tokenizers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
from pathlib import Path
from typing import Any

import pytest

from draftsmith.models.gguf.pre_tokenizers import PRE_TOKENIZERS
from draftsmith.models.gguf.special import end_token_ids
from draftsmith.models.gguf.splits import SPLITS
from draftsmith.models.gguf.tokenizer import open_gguf_tokenizer
from draftsmith.models.gguf.vocabulary import read_vocabulary
from tests.models.gguf.vocabularies import BYTE, BYTES, CONTROL, NORMAL, UNKNOWN, write

# Written by `python -m benchmarks.gguf_tokenizers --expected`.
EXPECTED: dict[str, Any] = json.loads(
    Path(__file__).with_name("expected_ids.json").read_text(encoding="utf-8")
)
RAW = [name for name, rule in PRE_TOKENIZERS.items() if rule.is_raw]


def byte_level(folder: Path, pre: str) -> Path:
    """The vocabulary of which the ids were written down."""
    tokens, types, merges, keys = (EXPECTED[key] for key in ("tokens", "types", "merges", "keys"))
    return write(folder / "model.gguf", tokens, types, merges=merges, pre=pre, **keys)


@pytest.mark.parametrize("pre", EXPECTED["ids"])
def test_ids_are_those_that_llama_cpp_gave(tmp_path: Path, pre: str) -> None:
    tokenizer = open_gguf_tokenizer(byte_level(tmp_path, pre))
    assert [tokenizer.encode(text) for text in EXPECTED["texts"]] == EXPECTED["ids"][pre]


def test_ids_were_written_down_for_every_split() -> None:
    written = {PRE_TOKENIZERS[name].split for name in EXPECTED["ids"]}
    assert written == SPLITS.keys() - {"lines"}
    assert {rule.split for rule in PRE_TOKENIZERS.values()} == SPLITS.keys()


def test_the_texts_tell_every_split_from_every_other() -> None:
    # But for names whose split is the same, and tells itself by other things.
    ids = [str(found) for found in EXPECTED["ids"].values()]
    assert len(set(ids)) == len(ids)


class TestLlamaCpp:
    """Beside the wheel, where it is installed (it is one of the extra `bench`)."""

    @pytest.fixture(autouse=True)
    def needs_the_wheel(self) -> None:
        pytest.importorskip("xllamacpp")

    @pytest.mark.parametrize("name", [*PRE_TOKENIZERS, "no such name"])
    def test_it_knows_the_names_that_we_know(self, tmp_path: Path, name: str) -> None:
        from benchmarks.llamacpp_vocabulary import PeerVocabulary

        if name not in PRE_TOKENIZERS:
            with pytest.raises(RuntimeError):
                PeerVocabulary(byte_level(tmp_path, name))
        elif name in RAW:
            assert_same(plain(tmp_path, name), texts())
        else:
            assert_same(byte_level(tmp_path, name), texts())

    @pytest.mark.parametrize("space", [None, False, True])
    def test_its_sentence_pieces_are_ours(self, tmp_path: Path, space: bool | None) -> None:
        tokens = ["<unk>", "<s>", "</s>", *BYTES, *"▁abé.", "▁a", "ab", "ba", "▁▁", "a.", "<|x|>"]
        types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 10, CONTROL]
        scores = [0.0] * 264 + [1.0, 1.0, 1.0, 2.0, -1.0, 0.0]
        path = tmp_path / "model.gguf"
        write(path, tokens, types, scores=scores, add_space_prefix=space)
        assert_same(path, [*texts(), "abab ba  baba. <|x|>aé", "", " "])


def texts() -> list[str]:
    from benchmarks.tokenizer_texts import random_texts

    return [*EXPECTED["texts"], *random_texts(12, 5, ("<|user|>", "<|im_end|>"))]


def plain(folder: Path, pre: str) -> Path:
    """A vocabulary of plain characters."""
    words = ["▁", "a", "b", "\n", "ab", "▁a", "▁ab", "\n\n\n", "<|user|>"]
    merges = ["a b", "▁ a", "▁ ab", "▁a b"]
    types = [CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 8, CONTROL]
    keys: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pre": pre}
    tokens = ["<bos>", "<|eos|>", *BYTES, *words]
    return write(folder / "model.gguf", tokens, types, merges=merges, **keys)


def assert_same(path: Path, texts: list[str]) -> None:
    """Both give every text the same ids, and end at the same."""
    from benchmarks.llamacpp_vocabulary import PeerVocabulary

    ours = open_gguf_tokenizer(path)
    with PeerVocabulary(path) as theirs:
        for text in texts:
            assert ours.encode(text) == theirs.encode(text), text
        assert set(end_token_ids(read_vocabulary(path))) == theirs.end_token_ids()
