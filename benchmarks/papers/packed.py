"""Tokenised text on disk: plain uint16 arrays, with lengths where there are pairs."""

import lzma
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from benchmarks.papers.parallel import Pair
from benchmarks.papers.vocabulary import GPT_IDS

__all__ = ["compress", "decompress", "pack_pairs", "pack_texts", "read_documents", "read_pairs"]

T = TypeVar("T")
_LONGEST_SIDE = 127
"""Tokens of a source or a translation, without its end: with it, 128."""
_AT_ONCE = 2000


def pack_texts(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, path: Path) -> int:
    """Write `[CLS] text [SEP]` after one another; return the number of tokens."""
    total = 0
    with path.open("wb") as file:
        for some in _batched(texts):
            for ids in tokenizer(some)["input_ids"]:
                tokens = np.array([*ids, GPT_IDS["[SEP]"]], dtype=np.uint16)
                total += len(tokens)
                file.write(tokens.tobytes())
    return total


def pack_pairs(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, path: Path) -> int:
    """Write sources and translations, and their lengths beside; return the number of pairs."""
    lengths: list[tuple[int, int]] = []
    with path.open("wb") as file:
        for some in _batched(pairs):
            english = tokenizer([pair.english for pair in some])["input_ids"]
            german = tokenizer([pair.german for pair in some])["input_ids"]
            for source, target in zip(english, german, strict=True):
                if max(len(source), len(target)) <= _LONGEST_SIDE + 1:
                    lengths.append((len(source), len(target)))
                    file.write(np.array([*source, *target], dtype=np.uint16).tobytes())
    np.array(lengths, dtype=np.uint16).tofile(_lengths_path(path))
    return len(lengths)


def read_documents(path: Path) -> list[NDArray[np.uint16]]:
    """The documents of a packed text, each from `[CLS]` to `[SEP]`."""
    tokens = np.fromfile(path, dtype=np.uint16)
    return np.split(tokens, np.flatnonzero(tokens == GPT_IDS["[CLS]"])[1:])


def read_pairs(path: Path) -> tuple[list[NDArray[np.uint16]], list[NDArray[np.uint16]]]:
    """Sources and translations, each with its `</s>`."""
    lengths = np.fromfile(_lengths_path(path), dtype=np.uint16).astype(np.int64)
    parts = np.split(np.fromfile(path, dtype=np.uint16), np.cumsum(lengths)[:-1])
    return parts[0::2], parts[1::2]


def compress(folder: Path, out: Path) -> list[Path]:
    """Every file of a data folder as `.xz`, for a machine that has to be sent it.

    Tables of n-grams (`.npz`) stay behind: they are counted where they are used.
    """
    written: list[Path] = []
    for path in _files(folder):
        if path.suffix == ".npz":
            continue
        place = out / path.relative_to(folder)
        place = place.with_name(place.name + ".xz")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(lzma.compress(path.read_bytes(), preset=6))
        written.append(place)
    return written


def decompress(folder: Path, out: Path) -> None:
    """Undo `compress`."""
    for path in _files(folder):
        place = (out / path.relative_to(folder)).with_suffix("")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(lzma.decompress(path.read_bytes()))


def _batched(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _lengths_path(path: Path) -> Path:
    return path.with_suffix(".lengths")
