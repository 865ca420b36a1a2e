"""Our ids of GGUF files beside llama.cpp's: every split, every kind of vocabulary, real files.

    python -m benchmarks.gguf_tokenizers

Vocabularies are trained on the spot, with tokens that cross words, so that a text that is cut at
another place gets other ids. A case is equal, refused by us, or different. Tokens' texts and the
ids that end a generation are compared, too. Where we differ on purpose (`docs/gguf.md`), the
texts are left out, and counted by themselves.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.models.gguf.vocabularies import (
    BYTE,
    BYTES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    write,
)
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from benchmarks.common import environment, write_result
from benchmarks.llamacpp import describe
from benchmarks.llamacpp_vocabulary import PeerVocabulary
from benchmarks.tokenizer_texts import random_texts, written_texts
from draftsmith.errors import DraftsmithError
from draftsmith.models.gguf.pre_tokenizers import PRE_TOKENIZERS
from draftsmith.models.gguf.special import end_token_ids
from draftsmith.models.gguf.tokenizer import GgufTokenizer
from draftsmith.models.gguf.vocabulary import read_vocabulary
from draftsmith.models.reference import local_path, resolve

EXPECTED = Path("tests/models/gguf/expected_ids.json")
CATALOGUE = (
    "smollm2-135m-instruct",
    "qwen2.5-coder-0.5b-instruct",
    "qwen2.5-coder-1.5b-instruct",
)
SPECIALS = ("<|bos|>", "<|eos|>", "<|user|>", "<|im_end|>", "<\uff5cUser\uff5c>")
USER_TOKENS = ("<h1>", "        ", "\u2581\u2581", "\n\n\n")
# Plain text in Qwen2.5's vocabulary, where llama.cpp ends at it; and no text of bytes.
ON_PURPOSE = {
    "qwen2.5-coder-0.5b-instruct": ["</s>"],
    "qwen2.5-coder-1.5b-instruct": ["</s>"],
    "no types": ["<\uff5cUser\uff5c>"],
}
_SEED = 11


@dataclass
class Outcome:
    """What came of one vocabulary's texts."""

    equal: int = 0
    refused: int = 0
    different: int = 0
    pieces_different: list[str] = field(default_factory=list)
    """Tokens whose text in an answer is another one."""
    ends_different: list[str] = field(default_factory=list)
    """Tokens that end a generation for one of the two."""
    on_purpose: list[str] = field(default_factory=list)
    """Tokens that are another thing for us on purpose: neither they nor texts with them count."""
    examples: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Words:
    """A trained vocabulary: its tokens, and merges in order."""

    tokens: list[str]
    merges: list[str]


def main() -> None:
    """Compare everything, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=2000, help="random texts a split")
    parser.add_argument("--written", type=int, default=500, help="written texts a split")
    parser.add_argument("--expected", action="store_true", help=f"write {EXPECTED} instead")
    options = parser.parse_args()
    texts = [*random_texts(options.random, _SEED, SPECIALS), *written_texts()[: options.written]]
    with tempfile.TemporaryDirectory() as folder:
        if options.expected:
            write_expected(Path(folder))
            return
        groups = {
            "splits": dict(compare_splits(Path(folder), texts)),
            "options": dict(compare_options(Path(folder), texts[::8])),
            "sentence_piece": dict(compare_sentence_piece(Path(folder), texts)),
            "files": dict(compare_files(texts)),
        }
    totals = {name: total(outcomes.values()) for name, outcomes in groups.items()}
    print(json.dumps(totals, indent=1))
    write_result(
        "gguf_tokenizers",
        {
            "environment": environment(),
            "peer": describe(None),
            "seed": _SEED,
            "num_random": options.random,
            "num_written": options.written,
            "totals": totals,
            "outcomes": {
                name: {case: asdict(outcome) for case, outcome in outcomes.items()}
                for name, outcomes in groups.items()
            },
        },
    )


def total(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """The sums of the counts."""
    found = list(outcomes)
    return {
        "cases": len(found),
        "equal": sum(one.equal for one in found),
        "refused": sum(one.refused for one in found),
        "different": sum(one.different for one in found),
        "pieces_different": sum(len(one.pieces_different) for one in found),
        "ends_different": sum(len(one.ends_different) for one in found),
    }


def compare(path: Path, texts: Sequence[str], on_purpose: Sequence[str] = ()) -> Outcome:
    """Encode every text with both, and decode every token."""
    outcome = Outcome(on_purpose=list(on_purpose))
    vocabulary = read_vocabulary(path)
    ours, tokens = GgufTokenizer(vocabulary), vocabulary.tokens
    with PeerVocabulary(path) as theirs:
        for text in texts:
            if not any(token in text for token in on_purpose):
                _compare_text(outcome, ours, theirs, text)
        ends = set(end_token_ids(vocabulary)) ^ theirs.end_token_ids()
        pieces = (
            index for index in range(theirs.num_tokens) if ours._piece(index) != theirs.piece(index)
        )
        outcome.ends_different = [tokens[i] for i in ends if tokens[i] not in on_purpose]
        outcome.pieces_different = [tokens[i] for i in pieces if tokens[i] not in on_purpose]
    return outcome


def compare_splits(folder: Path, texts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """Every name of a split: the first of each split with all texts, the others with a tenth."""
    words, raw = train_bytes(), train_plain()
    seen: set[str] = set()
    for name, rule in PRE_TOKENIZERS.items():
        family = f"{rule}"
        some = texts if family not in seen else texts[::10]
        seen.add(family)
        made = _raw(folder, raw, name) if rule.is_raw else _byte_level(folder, words, pre=name)
        yield name, _report(name, compare(made, some))


def compare_options(folder: Path, texts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """What else a byte-level file may say."""
    words = train_bytes()
    cases: dict[str, dict[str, Any]] = {"no split named": {"pre": None}}
    for pre in ("qwen2", "llama-bpe", "tekken", "gpt-2"):
        for bos in (None, False, True):
            for eos in (None, True):
                keys = {"pre": pre, "add_bos_token": bos, "add_eos_token": eos}
                cases[f"{pre}, bos {bos}, eos {eos}"] = keys
    cases["strips white space"] = {"pre": "gpt-2", "name": "Phi-3 of ours"}
    cases["no types"] = {"pre": "gpt-2", "has_types": False}
    for case, keys in cases.items():
        path = _byte_level(folder, words, **keys)
        yield case, _report(case, compare(path, texts, ON_PURPOSE.get(case, ())))


def compare_sentence_piece(folder: Path, texts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """SentencePiece vocabularies: kinds of scores with all texts, options with a fifth."""
    words = train_plain()
    rising = [-float(index) for index in range(len(words.tokens))]
    scores = {"trained": rising, "equal": [0.0] * len(rising), "reversed": rising[::-1]}
    for kind, values in scores.items():
        path = _sentence_piece(folder, words, values)
        yield f"{kind} scores", _report(kind, compare(path, texts))
    for space in (None, False, True):
        for bos in (None, False):
            for eos in (None, True):
                keys = {"add_space_prefix": space, "add_bos_token": bos, "add_eos_token": eos}
                path = _sentence_piece(folder, words, rising, **keys)
                case = f"space {space}, bos {bos}, eos {eos}"
                yield case, _report(case, compare(path, texts[::5]))
    path = _sentence_piece(folder, words, rising, name="phi-3")
    yield "strips white space", _report("phi-3", compare(path, texts[::5]))


def compare_files(texts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """The catalogue's files, as far as they have been pulled."""
    specials = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    for name in CATALOGUE:
        path = local_path(resolve(name))
        if path is None:
            continue
        some = [*texts, *random_texts(500, _SEED + 1, specials)]
        yield name, _report(name, compare(path, some, ON_PURPOSE.get(name, ())))


def write_expected(folder: Path) -> None:
    """Write llama.cpp's ids of a few texts for every split, for the tests."""
    words = train_bytes(size=1000)
    short = [text for text in random_texts(1500, _SEED, SPECIALS) if len(text) < 60]
    texts = [*written_texts()[:39], *short]
    names = {rule.split: name for name, rule in reversed(PRE_TOKENIZERS.items()) if not rule.is_raw}
    ids: dict[str, list[list[int]]] = {}
    for name in names.values():
        with PeerVocabulary(_byte_level(folder, words, pre=name)) as theirs:
            ids[name] = [theirs.encode(text) for text in texts]
    few = [0, 1, *_telling(list(ids.values()))]
    tokens, types, keys = _with_specials(words)
    vocabulary = {"tokens": tokens, "types": types, "merges": words.merges, "keys": keys}
    document = {
        "peer": describe(None)["wheel"],
        **vocabulary,
        "texts": [texts[index] for index in few],
        "ids": {name: [found[index] for index in few] for name, found in ids.items()},
    }
    EXPECTED.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def _telling(ids: list[list[list[int]]]) -> list[int]:
    """Few texts that tell every split from every other: the one that tells most, and so on."""
    left = {(i, j) for i in range(len(ids)) for j in range(i)}
    chosen: list[int] = []
    while left:
        told = [
            {(i, j) for i, j in left if ids[i][text] != ids[j][text]} for text in range(len(ids[0]))
        ]
        best = max(range(len(told)), key=lambda text: len(told[text]))
        if not told[best]:
            raise RuntimeError(f"no text tells these splits apart: {sorted(left)}")
        left -= told[best]
        chosen.append(best)
    return chosen


def train_bytes(size: int = 2500) -> Words:
    """Merges of bytes that cross words."""
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _train(_training_texts(), cut, size, pre_tokenizers.ByteLevel.alphabet())


def train_plain(size: int = 2500) -> Words:
    """Merges of characters, a space being U+2581, that cross words but no lines."""
    lines = [line.replace(" ", "\u2581") for text in _training_texts() for line in text.split("\n")]
    return _train(lines, pre_tokenizers.Split("\n", "isolated"), size, [])


def _training_texts() -> list[str]:
    """Other random texts than those that are compared, without special tokens and bytes.

    Without U+0000 too, at which llama.cpp ends a token's text.
    """
    texts = [*random_texts(3000, _SEED + 2), *written_texts()]
    return [text.replace("<0x0A>", "").replace("\0", "") for text in texts]


def _train(texts: Sequence[str], cut: Any, size: int, alphabet: list[str]) -> Words:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = cut
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        limit_alphabet=400,
        max_token_length=12,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return Words(tokens, [" ".join(pair) for pair in model["merges"]])


def _byte_level(folder: Path, words: Words, *, has_types: bool = True, **keys: Any) -> Path:
    tokens, types, ends = _with_specials(words)
    given = types if has_types else None
    return write(folder / "bytes.gguf", tokens, given, merges=words.merges, **ends, **keys)


def _with_specials(words: Words) -> tuple[list[str], list[int], dict[str, int]]:
    """Tokens and types with special ones behind, and the ids that keys name."""
    # Tokens that no merge reaches: some splits take them all the same.
    whole = [word for word in ("zqxjk", "\u0120zqxjk", "wholeword") if word not in words.tokens]
    extra = [*SPECIALS, "</s>", "<unk>", "<s>", "<|endoftext|>"]
    tokens = [*words.tokens, *whole, *extra]
    first = len(tokens) - len(extra)
    types = [NORMAL] * first + [CONTROL] * (len(extra) - 1) + [USER_DEFINED]
    ends = {"bos_token_id": first, "eos_token_id": first + 1, "seperator_token_id": first + 1}
    return tokens, types, ends


def _raw(folder: Path, words: Words, name: str) -> Path:
    """A vocabulary of plain characters; runs of line ends are tokens that no merge makes."""
    start = ["<pad>", "<|eos|>", "<|bos|>", *BYTES]
    lines = [line for line in ("\n", "\n\n", "\n\n\n") if line not in words.tokens]
    tokens = [*start, *words.tokens, *lines, "<|user|>"]
    types = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * (len(tokens) - 260) + [CONTROL]
    ends = {"bos_token_id": 2, "eos_token_id": 1}
    return write(folder / "raw.gguf", tokens, types, merges=words.merges, pre=name, **ends)


def _sentence_piece(folder: Path, words: Words, scores: list[float], **keys: Any) -> Path:
    """A vocabulary with bytes, special tokens and tokens of the user."""
    start = ["<unk>", "<s>", "</s>", *BYTES]
    user = [token for token in USER_TOKENS if token not in words.tokens]
    tokens = [*start, *words.tokens, *user, "<|user|>", "<|endoftext|>"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words.tokens)]
    types += [USER_DEFINED] * len(user) + [CONTROL] * 2
    values = [0.0] * len(start) + scores + [0.0] * (len(user) + 2)
    return write(folder / "pieces.gguf", tokens, types, scores=values, **keys)


def _compare_text(outcome: Outcome, ours: GgufTokenizer, theirs: PeerVocabulary, text: str) -> None:
    expected = theirs.encode(text)
    try:
        found = ours.encode(text)
    except DraftsmithError as error:
        outcome.refused += 1
        outcome.refusals = sorted({*outcome.refusals, str(error)})
        return
    if found == expected:
        outcome.equal += 1
        return
    outcome.different += 1
    if len(outcome.examples) < 3:
        outcome.examples.append(repr(text))


def _report(name: str, outcome: Outcome) -> Outcome:
    print(name, outcome, flush=True)
    return outcome


if __name__ == "__main__":
    main()
