"""Broken targets: passes and caches with one mistake each."""

from collections.abc import Sequence

from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.passed_on import PassedOn

__all__ = ["ForgetfulRollback", "RoundedChecks"]


class RoundedChecks(PassedOn):
    """A pass over several rows of one sequence rounds its logits to bfloat16."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        """Rounded where something is checked, exact where a token is decoded plainly."""
        return _rounded(self.inner.forward(cache, batch), batch)

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The same beside the streams."""
        logits, states = self.inner.forward_with_states(cache, batch, boundaries)
        return _rounded(logits, batch), states


def _rounded(logits: Tensor, batch: Rows) -> Tensor:
    return logits if batch.width == 1 else logits.bfloat16().to(logits.dtype)


class ForgetfulRollback(PassedOn):
    """A rollback keeps one token too many."""

    def __init__(self, inner: LanguageModel) -> None:
        super().__init__(inner)
        self.takes_trees = False

    def open_cache(self) -> Cache:
        """A cache that does not quite forget."""
        return _StaleCache(self.inner.open_cache())

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        """The inner model's logits."""
        return self.inner.forward(_inner(cache), batch)

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The inner model's logits and streams."""
        return self.inner.forward_with_states(_inner(cache), batch, boundaries)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self.inner.extend(_inner(cache), row, tokens)

    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Tensor:
        """Append tokens to one row; the streams of each."""
        return self.inner.extend_with_states(_inner(cache), row, tokens, boundaries)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a prompt to one row, as the inner model does it."""
        self.inner.prefill(_inner(cache), row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder once over the source of a row."""
        self.inner.encode(_inner(cache), row, source)


class _StaleCache(Cache):
    def __init__(self, inner: Cache) -> None:
        self.inner = inner

    def add(self) -> int:
        return self.inner.add()

    def remove(self, row: int) -> None:
        self.inner.remove(row)

    def length(self, row: int) -> int:
        return self.inner.length(row)

    def rollback(self, row: int, length: int) -> None:
        self.inner.rollback(row, min(length + 1, self.inner.length(row)))


def _inner(cache: Cache) -> Cache:
    assert isinstance(cache, _StaleCache)
    return cache.inner
