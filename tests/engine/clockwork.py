"""Models that know their text and take a stated time, and the clock that they move."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from draftsmith.engine import scheduler
from draftsmith.engine.rounds import step as round_step
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows

VOCAB = 64


class Clock:
    """Stands in for the clock of the engine: nothing moves it but models."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scheduler, "clock", clock)
    monkeypatch.setattr(round_step, "clock", clock)
    return clock


class Clockwork(LanguageModel):
    """Says `word(position, token before)` after `pass_s(rows)` seconds.

    It is certain, unless `sure(position, token before)` gives the logit of its word among zeros.
    """

    uses_torch_threads = False

    def __init__(
        self,
        clock: Clock,
        pass_s: Callable[[int], float],
        word: Callable[[int, int], int],
        read_s: float = 0.0,
        sure: Callable[[int, int], float] = lambda position, before: 50.0,
    ) -> None:
        self.traits = ModelTraits("clockwork", VOCAB, (), None)
        self.device = torch.device("cpu")
        self._clock = clock
        self._pass_s = pass_s
        self._word = word
        self._read_s = read_s
        self._sure = sure

    def open_cache(self) -> Cache:
        return CountedCache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        assert isinstance(cache, CountedCache)
        self._clock.now += self._pass_s(sum(map(len, batch.tokens)))
        logits = torch.zeros(len(batch.rows), batch.width, VOCAB)
        for number, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for step, token in enumerate(tokens):
                place = (cache.length(row) + step + 1, token)
                logits[number, step, self._word(*place)] = self._sure(*place)
            cache.append(row, len(tokens))
        return logits

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        assert isinstance(cache, CountedCache)
        self._clock.now += self._read_s * len(tokens)
        cache.append(row, len(tokens))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        raise NotImplementedError
