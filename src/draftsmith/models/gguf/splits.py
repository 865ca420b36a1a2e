r"""How texts are cut into words before byte-pair merging, for every split that llama.cpp knows.

A split is a list of patterns: each cuts the pieces that the one before it left, at its matches
and between them. What the patterns match was taken from llama.cpp, build b11549
(`llm_tokenizer_bpe` in `src/llama-vocab.cpp`, and the splits written by hand in
`src/unicode.cpp`), and is checked against that build by `benchmarks/gguf_tokenizers.py`.

Where a model's own `tokenizer.json` says otherwise, llama.cpp is followed, because GGUF files
are made for it:

- `gpt-4o`, `tekken`, `kimi-k2`, `youtu` and `tiny_aya` tell capital letters from small ones in
  every script; llama.cpp does so in ASCII (the first two) or not at all.
- `kimi-k2` lets marks join words, llama.cpp does not.
- `afmoe` and `tiny_aya` group digits in threes from the right; llama.cpp leaves the text before
  a number joined to its first group, which moves the cut between two spaces before a number.
- `k2-horizon` reads `'` and U+017F as `'s`.
"""

import re

from draftsmith.models.gguf.unicode_classes import CLASSES

__all__ = ["SPLITS", "spelled_out"]

_TOKEN = re.compile(r"(\\[pP]\{\w\}|\\.|[\[\]])")


def _ranges(codes: str) -> str:
    """The inside of a bracket from ranges of code points, in hexadecimal."""
    ends = (part.partition("-") for part in codes.split())
    return "".join(_character(first) + dash + _character(last) for first, dash, last in ends)


def _character(code: str) -> str:
    return rf"\x{{{code}}}" if code else ""


_RANGES = {category: _ranges(codes) for category, codes in CLASSES.items()}

_ENDING = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_WORD = _LEAD + r"\p{L}+"
_OTHER = r" ?[^\s\p{L}\p{N}]+"
_LINES = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"
_HAN = _ranges(
    "4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B820-2CEAF 2CEB0-2EBEF F900-FAFF "
    "2F800-2FA1F"
)
_KANA = f"[{_ranges('4E00-9FA5 3040-309F 30A0-30FF')}]+"
_PUNCTUATION_WORD = r"[!-/:-@\[-`{-~][A-Za-z]+"
_DIGIT = r"\p{N}"
_LINE = r"[^\n]+|\n+"
# Groups of three from the right; the text before a number stays with its first group.
# It may start only where a piece does: else every character would look ahead for a number.
_THREES = r"(?<!\P{N})(?>\P{N}*)\p{N}{1,3}(?=(?>(?:\p{N}{3})*)(?!\p{N}))"


def _any(*patterns: str) -> str:
    return "|".join(patterns)


def _words(number: str, word: str = _WORD, other: str = _OTHER + r"[\r\n]*") -> str:
    """The shape that most splits share: endings, words, numbers, other characters, spaces."""
    return _any(_ENDING, word, number, other, _LINES, _SPACES)


def _cased(marks: str, number: str, ending: str) -> str:
    """Words of capital, then small letters, with an ending; other scripts count as both."""
    capital, small = rf"(?:(?=[\p{{L}}{marks}])[^a-z])", rf"(?:(?=[\p{{L}}{marks}])[^A-Z])"
    return _any(
        f"{_LEAD}{capital}*{small}+{ending}",
        f"{_LEAD}{capital}+{small}*{ending}",
        number,
        _OTHER + r"[\r\n/]*",
        _LINES,
        _SPACES,
    )


def _caseless(number: str) -> str:
    """The same with marks, where capital and small are not told apart."""
    word = rf"{_LEAD}[\p{{L}}\p{{M}}]+(?:{_ENDING})?"
    return _any(word, number, _OTHER + r"[\r\n/]*", _LINES, _SPACES)


def _deepseek(line_ends: str) -> str:
    """The last pattern of DeepSeek V3's split; marks join words."""
    word = r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    return _any(_PUNCTUATION_WORD, word, r" ?[\p{P}\p{S}]+" + line_ends, _SPACES)


_GPT2 = _any(r"'s|'t|'re|'ve|'m|'ll|'d", r" ?\p{L}+", r" ?\p{N}+", _OTHER, _SPACES)
_QWEN2 = _words(_DIGIT)
_JAIS2_SPACES = _any(
    *(
        rf"\s{{{count}}}(?!\S)"
        for count in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
    ),
    r"\s",
)
_KIMI_WORD = rf"{_LEAD}[\p{{L}}&&[^{_HAN}]]+(?:{_ENDING})?"
_EXAONE_WORD = _LEAD + r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
# The letters of Latin, Greek, Cyrillic and like scripts that DeepSeek LLM lists one by one.
_DEEPSEEK_LETTERS = _ranges(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 "
    "388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD "
    "1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D "
    "1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 "
    "1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE "
    "2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 "
    "FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 "
    "118A0-118DF 1E900-1E943 "
)
_DEEPSEEK_MARKS = _ranges("21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3001-3002")
_WIDE = rf"[{_ranges('800-9FA5 AC00-D7FF')}&&\S]+"
_HANGUL = _ranges("AC00-D7A3 3131-318E")
_YOUTU_MARKS = _ranges("FF01 2026 201C 201D 2018 2019 2014 FF1A FF1B FF0C 3001-303F FE30-FE4F")
_BOPOMOFO = _ranges("3105-312F")
# From 8C48 where F900 was meant: the source's ideograph was normalised on its way.
_ASIAN = _ranges(
    "4E00-9FFF 3400-4DBF 8C48-FAFF 3040-309F 30A0-30FF FF65-FF9F 2F00-2FDF E40-E7F E80-EFF "
    "1780-17FF 1000-109F AA60-AA7F A9E0-A9FF AC00-D7AF 1100-11FF"
)
_SENTENCE_MARKS = _ranges("2026 3002 FF0C 3001 964 6D4 60C")
_SENTENCE_PART = rf" ?[^(\s|.,!?){_SENTENCE_MARKS}]+"

SPLITS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9]{3}"),
    "gpt2": (_GPT2,),
    "digits": (_DIGIT, _GPT2),
    "llama3": (_words(r"\p{N}{1,3}"),),
    "qwen2": (_QWEN2,),
    "qwen35": (_words(_DIGIT, _LEAD + r"[\p{L}\p{M}]+", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),),
    "jais2": (_any(_ENDING, _WORD, r"\p{N}{1,3}", _OTHER + r"[\r\n]*", _LINES, _JAIS2_SPACES),),
    "deepseek-llm": (
        r"[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        rf"\s?[{_DEEPSEEK_MARKS}]+",
        r"\s+\z",
        _WIDE,
        r"\p{N}+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _WIDE, _DIGIT),
    "deepseek3": (
        r"\p{N}{1,3}",
        _KANA,
        _deepseek(rf"[\r\n]*|{_LINES}"),
    ),
    "spark": (r"\p{N}{1,3}", _KANA, _deepseek(r"|[\r\n]"), _DIGIT),
    "youtu": (
        f"[{_HANGUL}]+|[{_YOUTU_MARKS}]+|[{_BOPOMOFO}]+|{_KANA}",
        _caseless(_DIGIT),
    ),
    "falcon": (r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9]{3}"),
    "bloom": (_SENTENCE_PART,),
    "viking": (_SENTENCE_PART, _DIGIT),
    "tekken": (_cased("", _DIGIT, ""),),
    "gpt-4o": (_cased("", r"\p{N}{1,3}", f"(?:{_ENDING})?"),),
    "granite-embedding": (_cased(r"\p{M}", r"\p{N}{1,3}", f"(?:{_ENDING})?"),),
    "tiny-aya": (_THREES, _caseless(r"\p{N}{1,3}")),
    "kimi-k2": (
        _any(f"[{_HAN}]+", _KIMI_WORD, r"\p{N}{1,3}", _OTHER + r"[\r\n]*", _LINES, _SPACES),
    ),
    "k2-horizon": (
        r"'\x{17F}|" + _words(r"\p{N}{1,3}", _LEAD + r"(?:\p{L}|\p{M}|\x{200C}|\x{200D})+"),
    ),
    "superbpe": (r"\p{N}+", "(?=(?:[0-9]{3})+(?![0-9]))"),
    "seed-coder": (_words(_DIGIT, _WORD, r" ?[^\s\p{L}\p{N}\r\n]+"),),
    "ufakzeka": (_any(_WORD, _DIGIT, _OTHER + r"[\r\n]*", _LINES, _SPACES),),
    "afmoe": (
        _THREES,
        f"[{_ASIAN}]+",
        _deepseek(rf"[\r\n]*|{_LINES}"),
    ),
    "laguna": (_LINE, _QWEN2),
    "exaone-moe": (
        _any(_ENDING, _EXAONE_WORD, _DIGIT, _OTHER + r"[\r\n/]?", r"\s*[\r\n]", _SPACES),
    ),
    "minicpm5": (r"\p{N}{1,3}", _words(r"\p{N}+")),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "IMGIMG[A-I]{1,4}Z",
        r"[\t\n]|    |  ",
        _DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
    "lines": (_LINE,),
}
"""Patterns by the name of a split; `\\p{L}` and its like stand for `unicode_classes`."""


def spelled_out(pattern: str) -> str:
    r"""Write the classes of a pattern as ranges.

    Args:
        pattern: With `\p{L}`, `\p{N}`, `\p{M}`, `\p{P}`, `\p{S}` and `\P{N}`, within brackets or
            without.

    Example:
        >>> spelled_out(r"\s[a-z]")
        '\\s[a-z]'
    """
    parts, is_inside = [], False
    for part in _TOKEN.split(pattern):
        if part in ("[", "]"):
            is_inside = part == "["
        if part.startswith((r"\p{", r"\P{")):
            ranges = _RANGES[part[3]]
            negation = "^" if part[1] == "P" else ""
            part = ranges if is_inside else f"[{negation}{ranges}]"
        parts.append(part)
    return "".join(parts)
