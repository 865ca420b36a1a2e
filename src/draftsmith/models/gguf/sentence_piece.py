"""SentencePiece's merging by score, as llama.cpp does it for `tokenizer.ggml.model` = `llama`.

Neighbours are merged whose joined text is a token, the one with the best score first, of equal
ones the leftmost; what is left over is spelled in bytes. (`llm_tokenizer_spm_session` in
llama.cpp's `src/llama-vocab.cpp`, build b11549; Kudo & Richardson, arXiv 1808.06226.) A list of
merges, as `tokenizers` takes it, cannot say this where scores are equal.
"""

import re
from functools import lru_cache
from heapq import heapify, heappop, heappush

from draftsmith.errors import InvalidRequestError
from draftsmith.models.gguf.vocabulary import Vocabulary

__all__ = ["SentencePieceEncoder"]

_SPACE = "\u2581"
_NUM_WORDS_KEPT, _LONGEST_WORD_KEPT = 16_384, 64
_SPACE_WITHIN = re.compile(f"[^{_SPACE}]{_SPACE}")
# A word begins with the spaces before it.
_WORDS = re.compile(f"{_SPACE}*[^{_SPACE}]+|{_SPACE}+")


class SentencePieceEncoder:
    """Turns text without special tokens into ids.

    Args:
        vocabulary: With scores.
        adds_space: Whether a text gets a space before it.

    Raises:
        ModelFormatError: If the scores are no numbers.
    """

    def __init__(self, vocabulary: Vocabulary, adds_space: bool) -> None:
        self._ids = vocabulary.ids
        self._costs = [-score for score in vocabulary.scores()]
        self._adds_space = adds_space
        # No merge crosses a space that no token has behind other text.
        self._is_cut = not any(map(_SPACE_WITHIN.search, vocabulary.tokens))
        self._merged = lru_cache(_NUM_WORDS_KEPT)(self._merge)

    def encode(self, text: str, is_first: bool) -> list[int]:
        """Return the ids of a piece of text.

        Args:
            text: Not empty.
            is_first: Whether nothing, or a special token, comes before it.

        Raises:
            InvalidRequestError: If neither a character nor its bytes are tokens.
        """
        spaced = f" {text}" if self._adds_space and is_first else text
        spaced = spaced.replace(" ", _SPACE)
        words = _WORDS.findall(spaced) if self._is_cut else [spaced]
        return [token for word in words for token in self._word(word)]

    def _word(self, word: str) -> tuple[int, ...]:
        return self._merged(word) if len(word) <= _LONGEST_WORD_KEPT else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        """The ids of a word that is merged by itself."""
        if len(word) == 1:
            return self._spelled(word)
        parts = list(word)
        ends = [*range(1, len(parts)), -1]
        starts = list(range(-1, len(parts) - 1))
        queue = [
            (cost, left, left + 1, parts[left] + parts[left + 1])
            for left in range(len(parts) - 1)
            if (cost := self._cost(parts[left] + parts[left + 1])) is not None
        ]
        heapify(queue)
        while queue:
            _, left, right, text = heappop(queue)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != text:
                continue  # one of them has been merged since
            parts[left], parts[right] = text, ""
            ends[left] = ends[right]
            if ends[left] >= 0:
                starts[ends[left]] = left
            for first, second in ((starts[left], left), (left, ends[left])):
                if first >= 0 and second >= 0:
                    joined = parts[first] + parts[second]
                    cost = self._cost(joined)
                    if cost is not None:
                        heappush(queue, (cost, first, second, joined))
        return tuple(token for part in parts if part for token in self._spelled(part))

    def _cost(self, text: str) -> float | None:
        token = self._ids.get(text)
        return None if token is None else self._costs[token]

    def _spelled(self, part: str) -> tuple[int, ...]:
        """The token that a part is, or its bytes'."""
        token = self._ids.get(part)
        return (token,) if token is not None else tuple(map(self._byte, part.encode()))

    def _byte(self, byte: int) -> int:
        token = self._ids.get(f"<0x{byte:02X}>")
        if token is None:
            raise InvalidRequestError(
                f"the prompt has the byte {byte:#04x} (in UTF-8), for which the model's "
                "vocabulary has no token: leave that character out"
            )
        return token
