"""A model that passes everything on: tests change it in one place."""

from collections.abc import Sequence

from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows


class Wrapped(LanguageModel):
    """A model, to be changed in one place."""

    def __init__(self, inner: LanguageModel) -> None:
        self.inner = inner
        self.traits = inner.traits
        self.device = inner.device

    def open_cache(self) -> Cache:
        return self.inner.open_cache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        return self.inner.forward(cache, batch)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        self.inner.extend(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        self.inner.encode(cache, row, source)
