"""Text out of HTML, DocBook, Mallard and manual pages, as blocks in reading order."""

import bz2
import gzip
import html
import re
from typing import NamedTuple

__all__ = ["Block", "blocks", "decompressed"]


class Block(NamedTuple):
    """A paragraph, heading, item or cell."""

    kind: str
    """The element or macro that it stood in; two languages of one document agree on it."""
    text: str


_DROPPED = re.compile(
    r"<!--.*?-->|<!DOCTYPE[^>\[]*(\[.*?\]\s*)?>|<\?.*?\?>|<!\[CDATA\[|\]\]>"
    r"|<(script|style|svg|math|nav|head|footer|info|bookinfo|articleinfo|indexterm)\b.*?</\2\s*>",
    re.S | re.I,
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)[^>]*>")
_INLINE_NAMES = (
    "a abbr acronym b bdi big cite code dfn em font i img kbd mark q s samp small span strike "
    "strong sub sup tt u var wbr ins del label "
    "gui guiseq key keyseq app cmd file input output link sys media "
    "guilabel guibutton guimenu guimenuitem guisubmenu guiicon menuchoice keycap keycombo "
    "application command option filename emphasis replaceable literal envar varname ulink xref "
    "userinput computeroutput prompt quote firstterm productname systemitem email mousebutton "
    "interface action parameter function type classname property trademark phrase wordasword "
    "shortcut acronym constant methodname symbol structfield returnvalue errortext sgmltag tag "
    "inlinemediaobject imageobject imagedata anchor citetitle foreignphrase "
    "remark accel superscript subscript citerefentry refentrytitle manvolnum optional"
)
_INLINE = frozenset(_INLINE_NAMES.split())
_ENTITY = re.compile(r"&([A-Za-z][\w.-]*);")
_SPACE = re.compile(r"\s+")


def blocks(path: str, data: bytes) -> list[Block]:
    """The blocks of a document, by what its path says that it is."""
    text = _decoded(data)
    if re.search(r"/man/(de/)?man\d/", path):
        return _man_blocks(text)
    if re.search(r"\.(html?|xhtml|page|docbook|xml)(\.(de|en))?$", path):
        return _markup_blocks(text)
    return [Block("p", _squeezed(part)) for part in re.split(r"\n\s*\n", text)]


def decompressed(path: str, data: bytes) -> tuple[str, bytes]:
    """The document and its path, without the compression that Debian puts on it."""
    if path.endswith((".gz", ".dz")):
        return path[:-3], gzip.decompress(data)
    if path.endswith(".bz2"):
        return path[:-4], bz2.decompress(data)
    return path, data


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _squeezed(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _markup_blocks(text: str) -> list[Block]:
    text = _DROPPED.sub(" ", text)
    found: list[Block] = []
    kind, pieces, last = "", [], 0

    def flush() -> None:
        whole = _squeezed(html.unescape("".join(pieces)))
        pieces.clear()
        if whole:
            found.append(Block(kind, _ENTITY.sub(r"\1", whole)))

    for match in _TAG.finditer(text):
        pieces.append(text[last : match.start()])
        last = match.end()
        name = match[2].lower()
        if name in _INLINE:
            continue
        flush()
        kind = "" if match[1] else name
    pieces.append(text[last:])
    flush()
    return found


_FONT = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)")
_SIZE = re.compile(r"\\s[+-]?\d")
_NAMED = {
    "aq": "'", "dq": '"', "oq": "'", "cq": "'", "lq": '"', "rq": '"', "em": "-", "en": "-",
    "bu": "*", "co": "(c)", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "Fo": "«", "Fc": "»",
    "bq": "\u201a", "Bq": "„", "hy": "-", "->": "->", "<=": "<=", ">=": ">=", ":u": "ü", ":o": "ö",
    ":a": "ä", "ss": "ß", ":U": "Ü", ":O": "Ö", ":A": "Ä",
}  # fmt: skip
_SPECIAL = re.compile(r"\\(?:\((..)|\[([^\]]+)\])")
_JOINED = ("BR", "RB", "IR", "RI", "BI", "IB")
_LINKS = ("UR", "UE", "MT", "ME")
_PLAIN = ("B", "I", "SM", "SB", "R")


def _man_blocks(text: str) -> list[Block]:
    """Paragraphs of a page in the `man` macros; none of an `mdoc` page."""
    if re.search(r"^\.Dd\b", text, re.M):
        return []
    found: list[Block] = []
    kind, pieces, is_literal = "", [], False

    def flush() -> None:
        whole = _squeezed(" ".join(pieces))
        pieces.clear()
        if whole:
            found.append(Block(kind, whole))

    for line in text.split("\n"):
        if line.startswith(('.\\"', "'\\\"", '\\"')):
            continue
        match = re.match(r"[.']\s*(\w*)\s*(.*)", line)
        if match is None:
            if not line.strip():
                flush()
            elif not is_literal:
                pieces.append(_roff(line))
            continue
        name, rest = match[1], _roff(match[2])
        if name in ("nf", "EX", "TS"):
            flush()
            is_literal = True
        elif name in ("fi", "EE", "TE"):
            is_literal = False
        elif is_literal:
            continue
        elif name in _JOINED:
            pieces.append("".join(re.sub(r"^\"|\"$", "", one) for one in _arguments(rest)))
        elif name in _PLAIN:
            pieces.append(" ".join(_arguments(rest)))
        elif name in _LINKS:
            # A link's address is no text; what follows its end is.
            pieces.append(" ".join(_arguments(rest)) if name in ("UE", "ME") else "")
        else:
            flush()
            kind = name
            if name in ("SH", "SS"):
                pieces.append(" ".join(_arguments(rest)))
                flush()
                kind = "P"
    flush()
    return found


def _arguments(rest: str) -> list[str]:
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', rest)]


def _roff(line: str) -> str:
    line = _SIZE.sub("", _FONT.sub("", line))
    line = _SPECIAL.sub(lambda match: _NAMED.get(match[1] or match[2], ""), line)
    line = line.replace("\\-", "-").replace("\\ ", " ").replace("\\~", " ").replace("\\e", "\\")
    return re.sub(r"\\[&/,:|^%)c]", "", line)
