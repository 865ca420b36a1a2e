"""A model's cache that follows sequences as tokens are committed to them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows

__all__ = ["Followed", "Follower", "common_prefix"]

_TAIL = 64
"""Tokens at the end in which a draft may have gone wrong."""


@runtime_checkable
class Followed(Protocol):
    """A sequence that a model follows."""

    @property
    def id(self) -> int:
        """The same from round to round, never used again for another sequence."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """Committed tokens, prompt included."""
        ...

    @property
    def source(self) -> Sequence[int]:
        """The encoder's tokens; empty for a decoder-only model."""
        ...


class Follower:
    """One model and its cache rows, a row for each live sequence.

    A row may hold drafted tokens that were rejected since, and lacks the newest committed ones:
    `catch_up` forgets the first and names the second. The target and a draft model use the same.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._cache: Cache = model.open_cache()
        self._rows: dict[int, int] = {}
        self._held: dict[int, list[int]] = {}

    def release_all_but(self, present: Sequence[Followed]) -> None:
        """Close the rows of sequences that are gone."""
        ids = {sequence.id for sequence in present}
        for gone in self._rows.keys() - ids:
            self._cache.remove(self._rows.pop(gone))
            del self._held[gone]

    def catch_up(self, sequence: Followed) -> list[int]:
        """Forget rejected tokens; return the committed tokens to feed, the newest at least.

        A sequence seen for the first time is prefilled (and its source encoded).
        """
        if sequence.id not in self._rows:
            self._open(sequence)
        held, tokens = self._held[sequence.id], sequence.tokens
        # The newest token is always fed: its logits are wanted.
        common = common_prefix(held, tokens[:-1])
        del held[common:]
        self._cache.rollback(self._rows[sequence.id], common)
        return list(tokens[common:])

    def forward(
        self, sequences: Sequence[Followed], tokens: Sequence[Sequence[int]]
    ) -> Float[Tensor, "batch rows vocab"]:
        """Append tokens to the rows of sequences; logits after each of them."""
        for sequence, new in zip(sequences, tokens, strict=True):
            self._held[sequence.id].extend(new)
        rows = [self._rows[sequence.id] for sequence in sequences]
        chunks = [self._readable(new) for new in tokens]
        return self.model.forward(self._cache, Rows(rows, chunks))

    def _open(self, sequence: Followed) -> None:
        row = self._rows[sequence.id] = self._cache.add()
        settled = list(sequence.tokens[:-1])
        if self.model.traits.is_encoder_decoder:
            self.model.encode(self._cache, row, self._readable(sequence.source))
        self.model.prefill(self._cache, row, self._readable(settled))
        self._held[sequence.id] = settled

    def _readable(self, tokens: Sequence[int]) -> list[int]:
        """The ids, and 0 for those that only a padded twin of this vocabulary has."""
        # Whatever a draft model makes of it, its drafts may be wrong; a target knows all ids.
        size = self.model.traits.vocab_size
        return [token if token < size else 0 for token in tokens]


def common_prefix(held: Sequence[int], tokens: Sequence[int]) -> int:
    """How many tokens the two begin with in common."""
    length = min(len(held), len(tokens))
    # Whole slices are compared a hundred times faster than tokens; they differ at the end, if so.
    sure = max(0, length - _TAIL)
    if held[:sure] != tokens[:sure]:
        sure = 0
    pairs = zip(held[sure:length], tokens[sure:length], strict=True)
    return next((i for i, (one, other) in enumerate(pairs, sure) if one != other), length)
