"""Byte-pair merging as a GGUF file means it, on the `tokenizers` library."""

import re
from collections.abc import Iterator

from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.gguf.alphabet import BYTES
from draftsmith.models.gguf.pre_tokenizers import PreRule, build_split, pre_rule
from draftsmith.models.gguf.vocabulary import Vocabulary

__all__ = ["BytePairEncoder", "merging"]

_SPACE = "\u2581"
_LINES = re.compile(r"[^\n]+|\n+")


class BytePairEncoder:
    """Turns text without special tokens into ids.

    Args:
        vocabulary: With merges.

    Raises:
        ModelFormatError: If a merge is malformed, or makes what is no token.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._rule = pre_rule(vocabulary)
        self._ids = vocabulary.ids
        self._num_tokens = len(vocabulary.tokens)
        self._backend = _backend(vocabulary, self._rule)

    def encode(self, text: str, is_first: bool) -> list[int]:
        """Return the ids of a piece of text.

        Args:
            text: Not empty.
            is_first: Whether nothing, or a special token, comes before it; here it is all one.

        Raises:
            InvalidRequestError: If the vocabulary lacks one of its bytes.
        """
        if not self._rule.is_raw:
            return self._merged(text)
        words = _raw_words(self._rule, text.replace(" ", _SPACE))
        return [token for word in words for token in self._whole(word) or self._merged(word)]

    def _whole(self, word: str) -> list[int] | None:
        """The token that a run of line ends is, whatever the merges say."""
        if not self._rule.keeps_lines or word.strip("\n") or word not in self._ids:
            return None
        return [self._ids[word]]

    def _merged(self, text: str) -> list[int]:
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if ids and max(ids) >= self._num_tokens:
            letter = self._backend.id_to_token(max(ids)) or ""
            raise InvalidRequestError(
                f"the prompt has the byte {BYTES[letter]:#04x} (in UTF-8), for which the model's "
                "vocabulary has no token: leave that character out"
            )
        return ids


def merging(vocabulary: Vocabulary) -> Backend | None:
    """The split and the merges of a vocabulary in the alphabet of bytes; None of another.

    Bytes that have no token are none there, as in the folder that such a file was made from.
    """
    rule, ids = pre_rule(vocabulary), vocabulary.ids
    if rule.is_raw:
        return None
    # A pair with such a byte is never met.
    pairs = [pair for pair in _pairs(vocabulary) if pair[0] in ids and pair[1] in ids]
    found = Backend(BPE(vocab=ids, merges=pairs, ignore_merges=rule.ignores_merges))
    found.pre_tokenizer = build_split(rule.split)
    return found


def _backend(vocabulary: Vocabulary, rule: PreRule) -> Backend:
    """The merges, behind the split if words are spelled in the alphabet of bytes."""
    ids = vocabulary.ids
    if rule.is_raw:
        _check_bytes(vocabulary)
    else:
        # Bytes without a token get ids beyond the vocabulary: a text with one is refused, where
        # llama.cpp shortens it without a word.
        missing = enumerate(sorted(BYTES.keys() - ids.keys()), len(ids))
        ids = ids | {letter: index for index, letter in missing}
    merges = _pairs(vocabulary)
    try:
        model = BPE(
            vocab=ids,
            merges=merges,
            ignore_merges=rule.ignores_merges,
            byte_fallback=rule.is_raw,
        )
    except Exception as error:  # the library knows no other; it is always raised again
        raise _explained(vocabulary, merges) from error
    backend = Backend(model)
    if not rule.is_raw:
        backend.pre_tokenizer = build_split(rule.split)
    return backend


def _check_bytes(vocabulary: Vocabulary) -> None:
    """Characters without a token are spelled in bytes: there must be one for each."""
    names = (f"<0x{byte:02X}>" for byte in range(0x100))
    missing = next((name for name in names if name not in vocabulary.ids), None)
    if missing is not None:
        raise ModelFormatError(
            f"{vocabulary.path}: its vocabulary has no token {missing}; convert the model again"
        )


def _pairs(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges; of one that is given twice, the first."""
    texts = vocabulary.merges()
    if len(set(texts)) < len(texts):
        texts = list(dict.fromkeys(texts))
    pairs: list[tuple[str, str]] = []
    for text in texts:
        left, space, right = text.partition(" ")
        if not (left and space and right):
            raise ModelFormatError(
                f"{vocabulary.path}: tokenizer.ggml.merges has {text!r}, not two tokens with a "
                "space between; convert the model again"
            )
        pairs.append((left, right))
    return pairs


def _explained(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> ModelFormatError:
    """Say which merge makes what is no token."""
    texts = ((pair, text) for pair in merges for text in (*pair, "".join(pair)))
    pair, text = next((p, t) for p, t in texts if t not in vocabulary.ids and t not in BYTES)
    return ModelFormatError(
        f"{vocabulary.path}: tokenizer.ggml.merges has {' '.join(pair)!r}, but the vocabulary has "
        f"no token {text!r}; convert the model again"
    )


def _raw_words(rule: PreRule, text: str) -> Iterator[str]:
    """The words of a text whose tokens are spelled in plain characters."""
    for line in _LINES.findall(text):
        if not rule.is_metaspace or line.startswith("\n"):
            yield line
        else:
            yield from (_SPACE + word for word in line.removeprefix(_SPACE).split(_SPACE))
