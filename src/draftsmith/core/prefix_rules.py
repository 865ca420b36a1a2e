"""Rules that look at the tokens before a position: n-grams, words, beginnings and ends.

Each row of a draft's logits is ruled by its own prefix, the one that holds if the drafts before it
are kept. So nothing is remembered between rounds, and a rejected draft leaves no trace. The rules
are those of `transformers`' logits processors (generation/logits_process.py, 5.24), by which they
are tested token by token.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.demands import Demands

__all__ = ["PrefixRules", "Prefixes"]

Prefix: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Prefixes:
    """The tokens before each of some consecutive rows."""

    tokens: Int[Tensor, " tokens"]
    """Prompt, output and drafts: all that the last row follows."""
    num_prompt: int
    rows: int

    def __iter__(self) -> Iterator[Int[Tensor, " prefix"]]:
        first = len(self.tokens) - (self.rows - 1)
        return (self.tokens[: first + row] for row in range(self.rows))

    def num_outputs(self) -> list[int]:
        """Output tokens before each row, drafts included."""
        first = len(self.tokens) - (self.rows - 1) - self.num_prompt
        return list(range(first, first + self.rows))


@dataclass(frozen=True)
class PrefixRules:
    """What the demands mean at each position.

    Args:
        demands: Settled with the request's own.
        ending_ids: Of which a growing length penalty makes more.
        source: An encoder-decoder's source; else the prompt.
        max_tokens: The longest output, where a forced end stands.
    """

    demands: Demands
    ending_ids: tuple[int, ...]
    source: tuple[int, ...]
    max_tokens: int

    @cached_property
    def is_idle(self) -> bool:
        """Whether no position's law is touched."""
        return self.demands.is_idle

    @cached_property
    def biases_words(self) -> bool:
        """Whether `biased` does anything."""
        return bool(self.demands.sequence_bias)

    @cached_property
    def bans_repetition(self) -> bool:
        """Whether `without_repetition` does anything."""
        asked = self.demands
        sizes = asked.no_repeat_ngram_size or asked.encoder_no_repeat_ngram_size
        return bool(sizes or asked.bad_words)

    @cached_property
    def rules_ends(self) -> bool:
        """Whether `at_ends` does anything."""
        asked = self.demands
        return (
            asked.forced_bos_token_id is not None
            or bool(asked.forced_eos_token_id or asked.begin_suppress_token_ids)
            or asked.exponential_decay_length_penalty is not None
            or bool(asked.suppress_token_ids)
        )

    def biased(
        self, scores: Float[Tensor, "rows vocab"], prefixes: Prefixes
    ) -> Float[Tensor, "rows vocab"]:
        """Add each sequence's bias to its last token, where the tokens before it are there."""
        bias = torch.zeros_like(scores)
        for row, prefix in enumerate(prefixes):
            for ending in _endings(prefix, self._biased_words):
                for token, value in ending.items():
                    if token < scores.shape[-1]:
                        bias[row, token] += value
        return scores + bias

    def without_repetition(
        self, scores: Float[Tensor, "rows vocab"], prefixes: Prefixes
    ) -> Float[Tensor, "rows vocab"]:
        """Ban what would repeat an n-gram, of the text or of the source, or end a bad word."""
        vocab = scores.shape[-1]
        banned = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        source = torch.tensor(self.source, dtype=torch.long, device=scores.device)
        for row, prefix in enumerate(prefixes):
            repeats = (
                _repeated(prefix, prefix, self.demands.no_repeat_ngram_size),
                _repeated(source, prefix, self.demands.encoder_no_repeat_ngram_size),
            )
            for tokens in repeats:
                banned[row, tokens[tokens < vocab]] = True
            for ending in _endings(prefix, self._bad_words):
                banned[row, [token for token in ending if token < vocab]] = True
        return scores.masked_fill(banned, -torch.inf)

    def at_ends(
        self, scores: Float[Tensor, "rows vocab"], prefixes: Prefixes
    ) -> Float[Tensor, "rows vocab"]:
        """Forced beginnings and ends, the growing wish for an end, and what is suppressed."""
        scores, asked = scores.clone(), self.demands
        for row, num_output in enumerate(prefixes.num_outputs()):
            line = scores[row]
            if asked.forced_bos_token_id is not None and prefixes.num_prompt + num_output == 1:
                _force(line, (asked.forced_bos_token_id,))
            if asked.forced_eos_token_id and num_output == self.max_tokens - 1:
                _force(line, asked.forced_eos_token_id)
            self._lengthen_wish(line, num_output)
            line[_within(asked.suppress_token_ids, line)] = -torch.inf
            if num_output == self._first_free(prefixes.num_prompt):
                line[_within(asked.begin_suppress_token_ids, line)] = -torch.inf
        return scores

    def _lengthen_wish(self, line: Float[Tensor, " vocab"], num_output: int) -> None:
        wish = self.demands.exponential_decay_length_penalty
        if wish is None or num_output <= wish[0]:
            return
        ids = _within(self.ending_ids, line)
        before = line[ids]
        grown = before + before.abs() * (wish[1] ** (num_output - wish[0]) - 1)
        line[ids] = torch.where(before.isfinite(), grown, before)

    def _first_free(self, num_prompt: int) -> int:
        """The first output position that nothing has forced."""
        return int(num_prompt <= 1 and self.demands.forced_bos_token_id is not None)

    @cached_property
    def _biased_words(self) -> "dict[int, dict[Prefix, dict[int, float]]]":
        return _by_length(self.demands.sequence_bias)

    @cached_property
    def _bad_words(self) -> "dict[int, dict[Prefix, dict[int, float]]]":
        return _by_length(dict.fromkeys(self.demands.bad_words, 0.0))


def _by_length(
    words: Mapping[tuple[int, ...], float],
) -> dict[int, dict[Prefix, dict[int, float]]]:
    """Sequences as (length of the beginning) -> beginning -> last token -> value."""
    found: dict[int, dict[Prefix, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for word, value in words.items():
        found[len(word) - 1][word[:-1]][word[-1]] = value
    return found


def _endings(
    prefix: Int[Tensor, " prefix"], words: dict[int, dict[Prefix, dict[int, float]]]
) -> Iterator[dict[int, float]]:
    """The last tokens of the sequences whose beginnings end this prefix."""
    # The sync is the rules' own: they are looked up on the host.
    tokens = prefix[max(0, len(prefix) - max(words, default=0)) :].tolist()
    for length, beginnings in words.items():
        beginning = tuple(tokens[len(tokens) - length :])
        if len(beginning) == length and beginning in beginnings:
            yield beginnings[beginning]


def _repeated(
    text: Int[Tensor, " text"], prefix: Int[Tensor, " prefix"], size: int
) -> Int[Tensor, " found"]:
    """What followed wherever `text` ran like the last `size` - 1 tokens of `prefix`."""
    if not size or len(text) < size or len(prefix) < size - 1:
        return text[:0]
    windows = text.unfold(0, size, 1)
    is_same = (windows[:, :-1] == prefix[len(prefix) - (size - 1) :]).all(-1)
    return windows[is_same, -1]


def _force(line: Float[Tensor, " vocab"], tokens: Sequence[int]) -> None:
    line.fill_(-torch.inf)
    line[_within(tokens, line)] = 0.0


def _within(ids: Sequence[int], line: Float[Tensor, " vocab"]) -> list[int]:
    """The ids that this vocabulary has: a padded twin may have fewer."""
    return [token for token in ids if 0 <= token < len(line)]
