"""English prose and documentation out of packages: which files, and which of their paragraphs."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.papers.debs import members
from benchmarks.papers.markup import blocks, decompressed

__all__ = ["documents", "is_prose"]

_MOST_OF_A_PACKAGE = 10_000_000
"""Characters: no package's style may drown the others'."""
_MOST_OF_A_DOCUMENT = 100_000
_LONGEST, _SHORTEST = 4000, 40

_WANTED = re.compile(
    r"^usr/share/(doc|gtk-doc|help/C|libreoffice/help/en-US|gimp/2\.0/help/en|perl|qt5/doc|"
    r"javascript|vim|maint-guide|debian-reference|debian-policy|developers-reference|devhelp)/"
    r".*\.(html?|xhtml|html\.en|page|docbook|txt|text|rst|md|pod|en\.html)(\.gz)?$"
    r"|^usr/share/man/man\d/.*\.\dp?[a-z]*\.gz$"
    r"|^usr/share/dictd/.*\.dict\.dz$|^usr/share/games/fortunes/[\w-]+$"
    r"|^usr/(share|lib)/(perl|tcltk|racket|erlang|octave|scilab|gap|maxima)/.*\.(html?|txt|pod)$"
)
_UNWANTED = re.compile(
    r"/(de|fr|es|it|ja|pt|pt_BR|pt-br|pt-BR|ru|zh|zh_CN|zh-cn|zh_TW|ko|nl|pl|sv|da|fi|cs|hu|el|tr|"
    r"ca|nb|nn|ro|sk|sl|uk|vi|lt|lv|hr|he|ar|[a-z]{2}[-_][A-Z]{2})/(?<!/en-US/)|"
    r"changelog|copyright|genindex|search|/NEWS|_sources/|/source/|-index\.html|functions_|"
    r"class-use|index-files|package-tree|allclasses|overview-|_8[hc]|-members\.html|\.svg|"
    r"\.(de|fr|es|it|ja|pt|ru|zh|ko|nl|pl|sv|da|tr)\.html|/test",
    re.I,
)
_COMMON_WORDS = (
    "the of and to in is that for it as with be are this by on or not an from at you can if will "
    "which was a have has but when all one may used use there he his they we been their would "
    "do does your its so than then into only no more such also must should any"
)
_STOPWORDS = frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"[A-Za-z']+")


def documents(deb: Path) -> Iterator[tuple[str, list[str]]]:
    """Path and clean paragraphs of each English document of a package, up to a limit."""
    room = _MOST_OF_A_PACKAGE
    for path, data in members(deb, _is_wanted):
        if room <= 0:
            return
        plain, data = decompressed(path, data)
        kept = [block.text for block in blocks(plain, data) if is_prose(block.text)]
        room -= sum(map(len, kept))
        for number, part in enumerate(_parts(kept)):
            yield f"{path}#{number}", part


def is_prose(text: str) -> bool:
    """Whether a paragraph is English text: mostly words, enough of them common ones."""
    if not _SHORTEST <= len(text) <= _LONGEST or not text.isprintable():
        return False
    words = _WORD.findall(text)
    if sum(map(len, words)) < 0.7 * (len(text) - text.count(" ")):
        return False
    if sum(character > "\u024f" for character in text) > 0.05 * len(text):
        return False
    return sum(word.lower() in _STOPWORDS for word in words) >= max(2, 0.2 * len(words))


def _parts(paragraphs: Sequence[str]) -> Iterator[list[str]]:
    """A long document (a dictionary, say) as several."""
    part: list[str] = []
    for text in paragraphs:
        part.append(text)
        if sum(map(len, part)) > _MOST_OF_A_DOCUMENT:
            yield part
            part = []
    if part:
        yield part


def _is_wanted(path: str) -> bool:
    return bool(_WANTED.search(path)) and not _UNWANTED.search("/" + path)
