"""The contract of a language model: tokens over a cache, to logits, for ragged batches.

A cache holds one row a sequence. A pass runs some of its rows, each with its own number of new
tokens; `rollback` forgets the last tokens of a row. So a sequence keeps its own accepted length
every round, and nothing is ever aligned between sequences.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.models.trees import check_parents

__all__ = [
    "AS_IT_COMES",
    "BoundedCache",
    "Cache",
    "CacheSettings",
    "CountedCache",
    "LanguageModel",
    "ModelTraits",
    "PagedCache",
    "Rows",
    "free_number",
]

_PROMPT_CHUNK = 1024


@dataclass(frozen=True)
class ModelTraits:
    """What the engine must know of a model before it runs."""

    name: str
    vocab_size: int
    """Columns of the logits; may exceed the tokenizer's ids (padding)."""
    eos_token_ids: tuple[int, ...]
    context_length: int | None
    """Most tokens in one sequence, as the model was made; None is unlimited."""
    position_limit: int | None = None
    """Positions that exist, where a table holds them; None where they are computed, so that the
    model can be run beyond its context."""
    source_length: int | None = None
    """Most tokens of a source; None is unlimited, and for decoder-only models."""
    is_encoder_decoder: bool = False
    decoder_start_token_id: int | None = None
    """What an encoder-decoder's output begins with; None for decoder-only models."""
    can_rollback: bool = True
    """Whether the cache can forget its last tokens, which checking a draft needs."""
    why_no_rollback: str = ""
    """The reason, for the refusal's message."""
    demands: Demands = NO_DEMANDS
    """What the model's files ask of every text, where a request asks nothing."""


@dataclass(frozen=True)
class Rows:
    """One pass: new tokens for some rows of a cache, after what each row holds."""

    rows: Sequence[int]
    """Rows of the cache, each at most once."""
    tokens: Sequence[Sequence[int]]
    """New tokens of each row, one or more."""
    parents: Sequence[Sequence[int]] | None = None
    """Of each new token of a row, the index among that row's new tokens of the one that it follows,
    less than its own; -1: it follows what the row holds. None: every token follows the one before
    it. Only for a model that takes trees."""

    def __post_init__(self) -> None:
        if self.parents is not None:
            for parents, tokens in zip(self.parents, self.tokens, strict=True):
                check_parents(parents, len(tokens))

    @property
    def width(self) -> int:
        """The most new tokens of one row."""
        return max(len(tokens) for tokens in self.tokens)

    def padded(self, device: torch.device) -> Tensor:
        """Token ids `[batch, width]`, short rows filled with 0 at the end."""
        width = self.width
        table = [[*tokens, *[0] * (width - len(tokens))] for tokens in self.tokens]
        return torch.tensor(table, dtype=torch.long, device=device)


class Cache(ABC):
    """The keys and values of some sequences, by row."""

    @abstractmethod
    def add(self) -> int:
        """Open an empty row and return its number."""

    @abstractmethod
    def remove(self, row: int) -> None:
        """Close a row, so that its memory can serve another."""

    @abstractmethod
    def length(self, row: int) -> int:
        """Tokens that the row holds."""

    @abstractmethod
    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row.

        Raises:
            NotRollbackableError: If the model's state cannot be undone.
        """


class CountedCache(Cache):
    """Rows by their lengths alone: the next pass writes over what lies beyond a length."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = free_number(self._lengths)
        self._lengths[row] = 0
        return row

    def remove(self, row: int) -> None:
        """Close a row."""
        del self._lengths[row]

    def length(self, row: int) -> int:
        """Tokens that the row holds."""
        return self._lengths[row]

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row."""
        assert 0 <= length <= self._lengths[row]
        self._lengths[row] = length

    def keep(self, row: int, length: int, path: Sequence[int]) -> None:
        """Forget all tokens of a pass but some, which the row then holds as if fed one by one.

        Args:
            row: One that took part in the pass, whose tokens are its last.
            length: Tokens that it held before the pass.
            path: Which of the new tokens: indices, each of a token that follows the one before it.
        """
        assert length + max(path, default=-1) < self._lengths[row]
        for target, source in enumerate(path):
            if target != source:
                self._move(row, length + source, length + target)
        self.rollback(row, length + len(path))

    def append(self, row: int, count: int) -> None:
        """Count `count` tokens that a pass has written."""
        self._lengths[row] += count

    def _move(self, row: int, source: int, target: int) -> None:
        """Copy what one slot of a row holds into another."""
        raise AssertionError("a cache whose model takes no trees moves no tokens")


class CacheSettings(NamedTuple):
    """What a cache may hold."""

    num_tokens: int | None = None
    """Tokens at most, in whole blocks of 64; None is as many as the memory takes."""
    shares_prefixes: bool = False
    """Whether rows share what they begin with, also with rows that are closed."""


AS_IT_COMES = CacheSettings()
"""No bound, and nothing shared."""


class BoundedCache(CountedCache):
    """Rows in blocks of memory, of which there may be too few, and whose beginnings are shared."""

    settings: CacheSettings = AS_IT_COMES

    @abstractmethod
    def reserve(self, row: int, num_tokens: int) -> int:
        """Make room for a row of so many tokens; the blocks that it then has in use.

        Kept beginnings make way for it.

        Raises:
            CacheFullError: There is no room, and nothing is changed.
        """

    @abstractmethod
    def recall(self, row: int, tokens: Sequence[int]) -> int:
        """Let an empty row hold what is known of a text's beginning; the tokens that it then holds.

        Raises:
            CacheFullError: There is no room for it, and nothing is changed.
        """

    @abstractmethod
    def remember(self, row: int, tokens: Sequence[int], *, is_leaving: bool = False) -> None:
        """Let others share the beginning of a row, in whole blocks, as far as there is room.

        Args:
            row: Which.
            tokens: What it holds, from its first token on.
            is_leaving: Whether it is closed next, so that its memory counts as free.
        """

    @abstractmethod
    def forget_kept(self) -> None:
        """Give back the memory of beginnings that no row holds."""

    @property
    @abstractmethod
    def num_held(self) -> int:
        """Tokens that the memory of all rows has room for."""

    @property
    @abstractmethod
    def num_kept(self) -> int:
        """Tokens of the beginnings that are kept beside them."""

    @property
    @abstractmethod
    def may_be_full(self) -> bool:
        """Whether there may be no room for what is wanted, as far as is settled beforehand."""

    @property
    @abstractmethod
    def most_tokens(self) -> int | None:
        """Tokens that there is memory for where all others are gone; None is not known."""

    @property
    def spare(self) -> int | None:
        """Tokens that may still be reserved; None where nothing is settled beforehand."""
        limit = self.settings.num_tokens
        return None if limit is None else limit - self.num_held

    @abstractmethod
    def check_integrity(self) -> None:
        """Counts, tables and lists agree.

        Raises:
            AssertionError: They do not.
        """


class PagedCache(BoundedCache):
    """Rows that a captured pass finds by their slots, in pages that are taken beforehand."""

    @abstractmethod
    def slot(self, row: int) -> int:
        """The line of the device's tables that is this row's."""


def free_number(taken: Container[int]) -> int:
    """The lowest row number that is not taken.

    Example:
        >>> free_number({0, 1, 3})
        2
    """
    return next(number for number in itertools.count() if number not in taken)


class LanguageModel(ABC):
    """A target or a draft model."""

    traits: ModelTraits
    device: torch.device
    uses_torch_threads: bool = True
    """Whether passes run on torch's threads; False if they would only be in the way."""
    can_be_captured: bool = False
    """Whether passes can be part of a CUDA graph."""
    has_reducible_head: bool = False
    """Whether logits can be computed for some of the ids alone, as a draft's may be."""
    num_head_ids: int | None = None
    """How many of the first ids they are computed for; None is all."""
    num_ranks: int = 1
    """Processes that run it together."""
    placed: str | None = None
    """Of a draft over several ranks: whether it is cut, and what a pass takes so and otherwise."""
    takes_trees: bool = False
    """Whether a pass may have `parents`. A token of a tree has the place in the cache that its
    index gives it, but its position is that of its depth, and it sees what the row held before,
    the tokens that it follows, and itself. `keep` then says which of them the row goes on with."""

    num_boundaries: int = 0
    """Boundaries at which the residual stream is handed out: 0 is the embeddings, b the stream
    behind b layers, before the final norm. 0 of them: none is."""
    hidden_size: int = 0
    """Of the residual stream, where it is handed out."""

    @abstractmethod
    def open_cache(self) -> Cache:
        """An empty cache of this model."""

    @abstractmethod
    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them.

        A short row's logits beyond its own tokens are undefined. Logits keep the model's dtype.
        """

    @abstractmethod
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """As `forward`, with the same logits, and the residual stream of every new token.

        Args:
            cache: Of this model.
            batch: One pass.
            boundaries: Which, each below `num_boundaries`.

        Returns:
            Logits, and streams in float32; what lies behind a short row's tokens is undefined.
        """
        raise AssertionError(f"{self.traits.name} hands out no hidden states")

    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """As `extend`, and the residual stream of every token."""
        raise AssertionError(f"{self.traits.name} hands out no hidden states")

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a prompt to one row, in chunks."""
        for _, part in self.prompt_chunks(tokens):
            self.extend(cache, row, part)

    def prompt_chunks(self, tokens: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """The parts in which a prompt is read, and where each begins."""
        for start in range(0, len(tokens), _PROMPT_CHUNK):
            yield start, tokens[start : start + _PROMPT_CHUNK]

    @abstractmethod
    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder once over the source of a row (encoder-decoder models only)."""
