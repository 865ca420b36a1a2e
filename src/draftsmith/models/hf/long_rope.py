"""Models with two sets of rotary frequencies, for short texts and for long ones (LongRoPE)."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, CountedCache, LanguageModel, Rows
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.ragged_cache import RaggedCache

__all__ = ["LongRopeModel"]

_CHUNK = 1024
_KEPT_BEYOND = 64
"""Tokens past the switch after which a row's short keys go: no draft is rolled back so far."""


class _TwoCaches(CountedCache):
    """Rows whose tokens are remembered, and their keys under each of two sets of frequencies."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__()
        self.tokens: dict[int, list[int]] = {}
        self.inner: dict[bool, RaggedCache] = {False: model.open_cache(), True: model.open_cache()}
        self._rows: dict[bool, dict[int, int]] = {False: {}, True: {}}

    def add(self) -> int:
        """Open an empty row and return its number."""
        row = super().add()
        self.tokens[row] = []
        return row

    def remove(self, row: int) -> None:
        """Close a row, under both."""
        super().remove(row)
        del self.tokens[row]
        self.drop(row, is_long=False)
        self.drop(row, is_long=True)

    def drop(self, row: int, *, is_long: bool) -> None:
        """Forget a row's keys under one set of frequencies."""
        if row in self._rows[is_long]:
            self.inner[is_long].remove(self._rows[is_long].pop(row))

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row, under both."""
        super().rollback(row, length)
        del self.tokens[row][length:]
        for is_long, rows in self._rows.items():
            if row in rows and self.inner[is_long].length(rows[row]) > length:
                self.inner[is_long].rollback(rows[row], length)

    def take(self, row: int, tokens: Sequence[int]) -> None:
        """Remember tokens of a row."""
        self.tokens[row].extend(tokens)
        self.append(row, len(tokens))

    def place(self, row: int, *, is_long: bool) -> int:
        """The row's number among those with one set of frequencies."""
        rows = self._rows[is_long]
        if row not in rows:
            rows[row] = self.inner[is_long].add()
        return rows[row]


class LongRopeModel(LanguageModel):
    """A model whose every text is read with the frequencies of its length.

    No pass crosses the switch, and rows on either side of it share none. At the switch a row's keys
    are computed again, as Phi-3's `generate` does. So a law is a function of the prefix: that of
    one pass over it.

    Args:
        inner: The model behind our contract, for rows on one side of the switch.
        last_short: Longest text with the short factors.
    """

    def __init__(self, inner: CausalModel, last_short: int) -> None:
        self._inner = inner
        self._last_short = last_short
        self.traits = inner.traits
        self.device = inner.device

    def open_cache(self) -> _TwoCaches:
        """An empty cache of this model."""
        return _TwoCaches(self._inner)

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        assert isinstance(cache, _TwoCaches)
        assert batch.parents is None
        shorts = [
            max(0, min(len(tokens), self._last_short - cache.length(row)))
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
        ]
        triples = list(zip(batch.rows, batch.tokens, shorts, strict=True))
        sides = (
            (False, [0] * len(shorts), [(row, tokens[:n]) for row, tokens, n in triples]),
            (True, shorts, [(row, tokens[n:]) for row, tokens, n in triples]),
        )
        parts = [
            (starts, self._pass(cache, pieces, is_long=is_long))
            for is_long, starts, pieces in sides
            if any(tokens for _, tokens in pieces)
        ]
        return _joined(batch, parts)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        assert isinstance(cache, _TwoCaches)
        cache.take(row, tokens)
        # The next token decides with what they are read; only its pass may need them sooner.
        self._catch_up(cache, row, is_long=cache.length(row) >= self._last_short)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a whole prompt to one row."""
        if tokens:
            self.extend(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def _pass(
        self, cache: _TwoCaches, pieces: Sequence[tuple[int, Sequence[int]]], *, is_long: bool
    ) -> dict[int, Tensor]:
        """Logits by index in the batch, for the rows that have tokens on this side."""
        live = [index for index, (_, tokens) in enumerate(pieces) if tokens]
        places = [self._catch_up(cache, pieces[index][0], is_long=is_long) for index in live]
        logits = self._inner.forward(
            cache.inner[is_long], Rows(places, [pieces[index][1] for index in live])
        )
        for index in live:
            row, tokens = pieces[index]
            cache.take(row, tokens)
            if cache.length(row) > self._last_short + _KEPT_BEYOND:
                cache.drop(row, is_long=False)
        return dict(zip(live, logits, strict=True))

    def _catch_up(self, cache: _TwoCaches, row: int, *, is_long: bool) -> int:
        """Read what a row's keys on one side lack; the row's number there."""
        place, inner = cache.place(row, is_long=is_long), cache.inner[is_long]
        tokens = cache.tokens[row]
        for start in range(inner.length(place), len(tokens), _CHUNK):
            # Each chunk is read as the long text that it is a part of.
            reach = self._last_short if is_long else None
            self._inner.extend(inner, place, tokens[start : start + _CHUNK], reach=reach)
        return place


def _joined(batch: Rows, parts: Sequence[tuple[Sequence[int], dict[int, Tensor]]]) -> Tensor:
    """Logits in the batch's order; each part's lines begin at their own columns."""
    first = next(line for _, lines in parts for line in lines.values())
    logits = first.new_zeros(len(batch.rows), batch.width, first.shape[-1])
    for starts, lines in parts:
        for index, line in lines.items():
            start = starts[index]
            count = min(batch.width - start, len(line))
            logits[index, start : start + count] = line[:count]
    return logits
