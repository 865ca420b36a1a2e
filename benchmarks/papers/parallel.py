"""English and German that say the same: message catalogues, and documents in both languages."""

import re
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.papers.debs import members
from benchmarks.papers.markup import Block, blocks, decompressed

__all__ = ["Halves", "Pair", "aligned", "catalogue", "clean", "halves"]

_CATALOGUE = re.compile(r"/de(_DE)?(/LC_MESSAGES)?/[^/]+\.mo$|/de(_DE)?\.mo$")
_DOCUMENT = re.compile(
    r"^usr/share/(help/(C|de)|doc/HTML/(en|de)|libreoffice/help/(en-US|de)|gimp/2\.0/help/(en|de))"
    r"/.*\.(page|docbook|xml|html)$"
    r"|^usr/share/man/(de/)?man\d/[^/]*\.gz$"
    r"|^usr/share/(doc|debian-reference|developers-reference|maint-guide|doc-debian|debian-faq)/.*"
    r"(/(de|de-DE|en|en-US)/.*|\.(de|en))\.x?html(\.gz)?$|^usr/share/doc/.*\.html\.(de|en)(\.gz)?$"
)
_GERMAN = re.compile(r"/(de|de-DE)/|\.de\.|\.de$|-de/|man/de/")
_OWNER = re.compile(r"^(usr/share/(?:doc/)?)([\w.+-]+?)-(de|en)(?:-us)?/")
_PLACE = re.compile(r"/(de|de-DE|en|en-US|C)(?=/)")
_SUFFIX = re.compile(r"\.(de|en)(?=\.|$)")


class Pair(NamedTuple):
    """A text and its translation."""

    english: str
    german: str


class Halves(NamedTuple):
    """The documents of one package, by a key that both languages share."""

    english: dict[str, list[Block]]
    german: dict[str, list[Block]]


def catalogue(data: bytes) -> Iterator[Pair]:
    """The translated messages of a GNU `.mo` file, both forms of a plural included.

    The format: a magic number, a revision, the number of strings, and where the two tables of
    (length, offset) begin.

    References:
        GNU gettext manual, "The Format of GNU MO Files".
    """
    if len(data) < 20:
        return
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    _, _, count, sources, targets = struct.unpack(f"{order}5I", data[:20])

    def string(table: int, index: int) -> str:
        length, start = struct.unpack_from(f"{order}2I", data, table + 8 * index)
        return data[start : start + length].decode("utf-8", errors="replace")

    for index in range(count):
        english = string(sources, index).rpartition("\x04")[2].split("\0")
        german = string(targets, index).split("\0")
        if english == [""] or "\ufffd" in german[0]:
            continue
        yield Pair(english[0], german[0])
        if len(english) == 2 and len(german) == 2:
            yield Pair(english[1], german[1])


def halves(deb: Path) -> tuple[list[Pair], Halves]:
    """A package's raw message pairs, and its documents in either language."""
    messages: list[Pair] = []
    found = Halves({}, {})
    for path, data in members(deb, _is_wanted):
        if _CATALOGUE.search(path):
            messages += catalogue(data)
            continue
        plain, data = decompressed(path, data)
        side = found.german if _GERMAN.search(plain) else found.english
        side[_key(plain)] = blocks(plain, data)
    return messages, found


def aligned(english: Sequence[Block], german: Sequence[Block]) -> Iterator[Pair]:
    """Pair the blocks of a document and its translation, section by section.

    Both were made from one source, so that a whole document has the same kinds of blocks in the
    same order; where it has not, those sections that do are kept. A translation may end with
    sections of its own.
    """
    if [block.kind for block in english] == [block.kind for block in german]:
        yield from _paired(english, german)
        return
    ours, theirs = _sections(english), _sections(german)
    if not 0 <= len(theirs) - len(ours) <= _MOST_ADDED:
        return
    for one, other in zip(ours, theirs, strict=False):
        if [block.kind for block in one] == [block.kind for block in other]:
            yield from _paired(one, other)


def clean(pair: Pair) -> Pair | None:
    """The pair without markup and accelerators; None if it is not one to learn from.

    Format placeholders stay.
    """
    english, german = (_TAGS.sub("", text.replace("\\n", "\n")) for text in pair)
    for mark in "&~_":
        accelerator = re.compile(rf"{mark}(?=\w)")
        is_identifier = mark == "_" and re.fullmatch(r"\S*\w_\w\S*", english)
        # One mark on each side is an accelerator; more are text.
        if not is_identifier and all(len(accelerator.findall(s)) <= 1 for s in (english, german)):
            english, german = (accelerator.sub("", text) for text in (english, german))
    english, german = (" ".join(text.split()) for text in (english, german))
    return Pair(english, german) if _is_translation(english, german) else None


_TAGS = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_LETTERS = re.compile(r"[^\W\d_]")
_HEADINGS = ("h1", "h2", "h3", "h4", "title", "SH", "SS")
_MOST = 600
_MOST_ADDED = 2
"""Sections at a translation's end: who translated, and under which licence."""


def _is_translation(english: str, german: str) -> bool:
    shorter, longer = sorted((len(english), len(german)))
    if not 2 <= shorter <= longer <= _MOST or english.casefold() == german.casefold():
        return False
    if not (english.isprintable() and german.isprintable()):
        return False
    if any(len(_LETTERS.findall(text)) < 0.5 * len(text) for text in (english, german)):
        return False
    return longer <= 2.2 * shorter + 15


def _sections(document: Sequence[Block]) -> list[Sequence[Block]]:
    starts = [i for i, block in enumerate(document) if block.kind in _HEADINGS]
    return [document[a:b] for a, b in pairwise([0, *starts, len(document)])]


_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])")


def _paired(english: Sequence[Block], german: Sequence[Block]) -> Iterator[Pair]:
    for one, other in zip(english, german, strict=True):
        ours, theirs = _SENTENCE.split(one.text), _SENTENCE.split(other.text)
        if len(ours) == len(theirs):
            yield from map(Pair, ours, theirs)
        else:
            yield Pair(one.text, other.text)


def _is_wanted(path: str) -> bool:
    return bool(_CATALOGUE.search(path) or _DOCUMENT.search(path))


def _key(path: str) -> str:
    """The path without its language."""
    path = _OWNER.sub(r"\1\2/", path).replace("/man/de/", "/man/")
    return _SUFFIX.sub("", _PLACE.sub("/@", path))
