"""Unigram and bigram tables: the law's formula, back-off, files, and drafts from them."""

import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from draftsmith.drafters import NgramDrafter, NgramTable
from draftsmith.errors import InvalidRequestError, ModelFormatError, ModelNotFoundError

VOCAB = 6
texts = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=12), min_size=1, max_size=4).filter(
    any
)


def counted_law(all_texts: list[list[int]], token: int) -> torch.Tensor:
    """The bigram law, counted the slow way from its definition."""
    flat = [one for text in all_texts for one in text]
    pairs = [(a, b) for text in all_texts for a, b in pairwise(text)]
    follows = sum(first == token for first, _ in pairs)
    unigram = [flat.count(b) / len(flat) for b in range(VOCAB)]
    return torch.tensor(
        [(pairs.count((token, b)) + unigram[b]) / (follows + 1) for b in range(VOCAB)]
    )


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, VOCAB - 1))
def test_the_bigram_law_is_its_definition(all_texts: list[list[int]], token: int) -> None:
    table = NgramTable.from_tokens(all_texts, VOCAB)
    torch.testing.assert_close(table.law(token), counted_law(all_texts, token))
    torch.testing.assert_close(table.law(token).sum(), torch.tensor(1.0))


@settings(max_examples=50, deadline=None)
@given(texts)
def test_the_unigram_law_is_each_tokens_share(all_texts: list[list[int]]) -> None:
    table = NgramTable.from_tokens(all_texts, VOCAB, order=1)
    flat = torch.tensor([token for text in all_texts for token in text])
    expected = torch.bincount(flat, minlength=VOCAB) / len(flat)
    for token in range(VOCAB):
        torch.testing.assert_close(table.law(token), expected)


def test_a_token_that_nothing_followed_backs_off_to_the_unigram() -> None:
    table = NgramTable.from_tokens([[0, 1, 0, 2]], VOCAB)
    torch.testing.assert_close(table.law(2), torch.tensor([0.5, 0.25, 0.25, 0, 0, 0]))
    torch.testing.assert_close(table.law(5), table.law(2))


def test_an_id_behind_the_table_backs_off_to_the_unigram() -> None:
    table = NgramTable.from_tokens([[0, 1, 0, 2]], VOCAB)
    torch.testing.assert_close(table.law(VOCAB + 40), table.law(5))


def test_pairs_do_not_reach_from_one_text_into_the_next() -> None:
    apart = NgramTable.from_tokens([[0, 1], [2, 3]], VOCAB)
    assert float(apart.law(1)[2]) == 0.25  # the unigram's share alone


def test_law_of_the_first_and_last_id_are_found() -> None:
    table = NgramTable.from_tokens([[0, 5, 0, 5]], VOCAB)
    torch.testing.assert_close(table.law(0), torch.tensor([0.5, 0, 0, 0, 0, 2.5]) / 3)
    torch.testing.assert_close(table.law(5), torch.tensor([1.5, 0, 0, 0, 0, 0.5]) / 2)


def test_orders_and_names() -> None:
    one, two = (NgramTable.from_tokens([[0, 1]], VOCAB, order) for order in (1, 2))
    assert (one.order, two.order) == (1, 2)
    assert (NgramDrafter(one).name, NgramDrafter(two).name) == ("unigram", "bigram")


@pytest.mark.parametrize(
    ("bad", "order", "why"),
    [
        ([[0, 1]], 3, "order must be 1 or 2, got 3"),
        ([], 2, "at least one token"),
        ([[]], 1, "at least one token"),
        ([[0, VOCAB]], 2, f"ids below {VOCAB}"),
        ([[-1]], 1, f"ids below {VOCAB}"),
    ],
)
def test_texts_that_give_no_table_are_refused(bad: list[list[int]], order: int, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        NgramTable.from_tokens(bad, VOCAB, order)


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_a_saved_table_comes_back(tmp_path: Path, order: int) -> None:
    table = NgramTable.from_tokens([[0, 1, 0, 2, 5]], VOCAB, order)
    path = tmp_path / "table.npz"
    table.save(path)
    again = NgramTable.load(str(path))
    assert again.order == order
    for token in range(VOCAB):
        assert torch.equal(again.law(token), table.law(token))


def test_the_file_keeps_the_name_that_was_given(tmp_path: Path) -> None:
    NgramTable.from_tokens([[0, 1]], VOCAB).save(tmp_path / "no-suffix")
    assert [path.name for path in tmp_path.iterdir()] == ["no-suffix"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"none\.npz does not exist"):
        NgramTable.load(tmp_path / "none.npz")


def test_a_table_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, format=np.array(2), counts=np.array([1, 1]))
    with pytest.raises(ModelFormatError, match=r"table\.npz is an n-gram table of another version"):
        NgramTable.load(path)


COUNTS = np.array([1, 2, 1])
PAIRS = np.array([[0, 1], [1, 2]])
BROKEN: dict[str, dict[str, np.ndarray]] = {
    "no format": {"counts": COUNTS},
    "no counts": {"format": np.array(1)},
    "counts of a matrix": {"format": np.array(1), "counts": np.ones((2, 2), dtype=np.int64)},
    "fractions for counts": {"format": np.array(1), "counts": np.array([0.5, 0.5])},
    "nothing counted": {"format": np.array(1), "counts": np.zeros(3, dtype=np.int64)},
    "pairs alone": {"format": np.array(1), "counts": COUNTS, "pairs": PAIRS},
    "pair counts alone": {"format": np.array(1), "counts": COUNTS, "pair_counts": np.array([1])},
    "too few pair counts": {
        "format": np.array(1),
        "counts": COUNTS,
        "pairs": PAIRS,
        "pair_counts": np.array([1]),
    },
    "ids behind the vocabulary": {
        "format": np.array(1),
        "counts": COUNTS,
        "pairs": np.array([[0, 3]]),
        "pair_counts": np.array([1]),
    },
    "pairs out of order": {
        "format": np.array(1),
        "counts": COUNTS,
        "pairs": PAIRS[::-1].copy(),
        "pair_counts": np.array([1, 1]),
    },
    "format of words": {"format": np.array("one"), "counts": COUNTS},
    "format of many": {"format": np.array([1, 1]), "counts": COUNTS},
}


@pytest.mark.parametrize("name", BROKEN)
def test_arrays_that_are_no_table_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, allow_pickle=False, **BROKEN[name])
    with pytest.raises(ModelFormatError, match=r"table\.npz is not an n-gram table") as caught:
        NgramTable.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"plain text", b"PK\x03\x04 not quite", b"\x93NUMPY\x01\x00"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="is not an n-gram table"):
        NgramTable.load(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    with path.open("wb") as file:
        np.save(file, COUNTS)
    with pytest.raises(ModelFormatError, match="is not an n-gram table"):
        NgramTable.load(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="is not an n-gram table"):
        NgramTable.load(tmp_path)


def test_a_file_cut_short_or_changed_anywhere_is_refused_or_the_same(tmp_path: Path) -> None:
    table = NgramTable.from_tokens([[i % 5 for i in range(60)]], VOCAB)
    path = tmp_path / "table.npz"
    table.save(path)
    whole = path.read_bytes()
    num_refused = 0
    for at in range(0, len(whole), 7):
        flipped = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        for content in (whole[:at], flipped):
            path.write_bytes(content)
            try:
                read = NgramTable.load(path)
            except ModelFormatError:
                num_refused += 1
                continue
            assert torch.equal(read.law(1), table.law(1)), "a changed byte changed the law"
    assert num_refused > len(whole) // 14


def test_the_file_is_an_ordinary_npz(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    NgramTable.from_tokens([[0, 1]], VOCAB).save(path)
    names = {"format.npy", "counts.npy", "pairs.npy", "pair_counts.npy"}
    assert set(zipfile.ZipFile(path).namelist()) == names
