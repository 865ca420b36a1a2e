"""Texts on which tokenizers differ: random ones that aim at their corners, and written ones."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import humaneval_prompts

_ROOT = Path(__file__).parent.parent
_TEXTS = json.loads((_ROOT / "benchmarks" / "tokenizer_texts.json").read_text())
_SPACES = (
    *[" "] * 12, *[""] * 4, "  ", "   ", "    ", "      ", "        ", "\n", "\n\n", "\n \n",
    "\r\n", "\t", " \t ", "\u00a0", "\u3000", "\u2003", "\x85", "\u2028", "\x0b", "\x0c",
)  # fmt: skip
_PIECES = "aZ9 .'\n-\u00e9\u6f22\u0301"
_PLANES = (
    (0, 0x20), (0x20, 0x7F), (0x80, 0x3000), (0x3000, 0xD800), (0xE000, 0x20000),
    (0x20000, 0x110000),
)  # fmt: skip


def random_texts(count: int, seed: int, specials: tuple[str, ...] = ()) -> list[str]:
    """Texts of words, numbers, spaces and any characters, and of special tokens between them."""
    chance = random.Random(seed)
    return ["".join(_parts(chance, specials)) for _ in range(count)]


def written_texts() -> list[str]:
    """Lines in 35 languages, problems of HumanEval, and paragraphs of this project's own files."""
    texts = [*_TEXTS["lines"], *humaneval_prompts(164)]
    for pattern in ("docs/*.md", "README.md", "src/draftsmith/c*/*.py"):
        for path in sorted(_ROOT.glob(pattern)):
            texts += [part for part in path.read_text(encoding="utf-8").split("\n\n") if part]
    return texts[:1000]


def _parts(chance: random.Random, specials: tuple[str, ...]) -> Iterator[str]:
    for _ in range(chance.randint(1, 14)):
        yield chance.choice(_SPACES)
        which = chance.random()
        if which < 0.1 and specials:
            yield chance.choice(specials)
        elif which < 0.8:
            yield chance.choice(_TEXTS["words"])
        elif which < 0.9:
            yield chr(chance.randrange(*chance.choice(_PLANES)))
        else:
            yield "".join(chance.choices(_PIECES, k=chance.randint(1, 6)))
