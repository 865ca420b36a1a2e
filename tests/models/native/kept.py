"""Caches whose memory tests can write and read as a pass would: what lies there is known."""

from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import torch

from draftsmith.models.contract import BoundedCache, CacheSettings
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.cpu_cache import CpuCache
from draftsmith.models.native.gpu_cache import GpuCache, PagePool
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.prefixes import BLOCK
from tests.models.native.test_cpu import read

__all__ = ["CONTEXT", "KINDS", "Memory", "config", "marks"]

KINDS = ("cpu", "gpu")
CONTEXT = 8 * BLOCK
_FIRST_PAGES = 6


def config() -> DecoderConfig:
    return replace(read("llama", None)[0], context_length=CONTEXT)


def marks(tokens: Sequence[int]) -> list[float]:
    """What a pass writes for each token: it depends on all tokens before it, too."""
    found: list[float] = []
    state = 1
    for token in tokens:
        state = (state * 31 + token + 7) % 65_521
        found.append(float(state))
    return found


class Memory:
    """A model's memory and its caches; a pass writes marks in the place of keys and values.

    Args:
        kind: "cpu" has one cache, "gpu" any number over one pool.
        settings: Of each cache.
    """

    def __init__(self, kind: str, settings: CacheSettings) -> None:
        self._settings = settings
        self._config = config()
        with mock.patch("draftsmith.models.native.gpu_store._FIRST_TOKENS", BLOCK * _FIRST_PAGES):
            device = torch.device("cpu")
            store = PageStore(self._config, device, torch.float32)
            self.pool = PagePool(store, self._config.context_length) if kind == "gpu" else None

    def open_cache(self) -> BoundedCache:
        pool = self.pool
        cache = CpuCache(self._config, torch.float32) if pool is None else GpuCache(pool)
        cache.settings = self._settings
        return cache

    def write(self, cache: BoundedCache, row: int, text: Sequence[int], count: int) -> None:
        """Run the last `count` tokens of a text, whose others the row holds."""
        cache.reserve(row, len(text))
        for position in range(len(text) - count, len(text)):
            for part in self._places(cache, row, position):
                part.fill_(marks(text)[position])
        cache.append(row, count)

    def read(self, cache: BoundedCache, row: int) -> list[float]:
        """The marks of all tokens that a row holds; keys and values have the same."""
        found: list[float] = []
        for position in range(cache.length(row)):
            values = {float(x) for one in self._places(cache, row, position) for x in one.unique()}
            assert len(values) == 1, f"position {position} is a mixture"
            found += values
        return found

    def _places(self, cache: BoundedCache, row: int, position: int) -> list[torch.Tensor]:
        if isinstance(cache, CpuCache):
            held = cache.row(row)
            return [held.keys[:, :, position // 16, :, position % 16], held.values[:, :, position]]
        assert isinstance(cache, GpuCache)
        assert self.pool is not None
        page = int(self.pool.store.tables[cache.slot(row), position // BLOCK])
        layers = [self.pool.store.layer(number) for number in range(self._config.num_layers)]
        parts = [part for layer in layers for part in layer]
        return [part[page, :, position % BLOCK] for part in parts]

    def check(self, caches: Sequence[BoundedCache], texts: Sequence[dict[int, list[int]]]) -> None:
        """All counts agree, and every row holds what its text wrote.

        Args:
            caches: All that there are.
            texts: Of each, the tokens of every row.
        """
        for cache, rows in zip(caches, texts, strict=True):
            cache.check_integrity()
            for row, text in rows.items():
                assert self.read(cache, row) == marks(text)
        if self.pool is not None:
            pairs = zip(caches, texts, strict=True)
            self.pool.check_integrity(
                [cache.pages(row) for cache, rows in pairs for row in rows]  # type: ignore[attr-defined]
            )
