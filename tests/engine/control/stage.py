"""A target and drafts whose passes take stated times, and a bench that runs both."""

import math
import random
from collections.abc import Callable

from torch import Tensor

from draftsmith import Engine, SamplingParams
from draftsmith.core.gamma import Gamma
from draftsmith.drafters import Drafter, ModelDrafter
from draftsmith.engine.requests.result import GenerationResult
from draftsmith.models.contract import Cache, CountedCache, Rows
from tests.engine.clockwork import VOCAB, Clock, Clockwork

FLAT = {1: 17.0, 4: 19.0, 8: 28.0, 16: 53.0, 33: 100.0}
"""Rows to milliseconds, as of a small target on two cores."""
PROMPT = [1] * 40


def flat_s(rows: int) -> float:
    known = sorted(FLAT)
    low = max(one for one in known if one <= rows)
    high = min((one for one in known if one >= rows), default=known[-1])
    share = 0.0 if high == low else (rows - low) / (high - low)
    return (FLAT[low] + share * (FLAT[high] - FLAT[low])) / 1e3


def steep_s(rows: int) -> float:
    return 0.017 * (1 + 0.8 * (rows - 1))


def word(position: int, before: int) -> int:
    return (5 * position + before) % VOCAB


def good_for(alpha: Callable[[int], float]) -> Callable[[int, int], int]:
    """The target's word with probability alpha, which may depend on the position."""

    def said(position: int, before: int) -> int:
        is_hit = random.Random(VOCAB * position + before).random() < alpha(position)
        return (word(position, before) + (0 if is_hit else 1)) % VOCAB

    return said


class Bench:
    """The same prompts plainly, with fixed gammas and with "auto"."""

    def __init__(
        self,
        clock: Clock,
        draft: Callable[[], Drafter],
        pass_s: Callable[[int], float] = flat_s,
        *,
        noise: float = 0.0,
        batch: int = 1,
    ) -> None:
        self.clock, self.draft, self.batch = clock, draft, batch
        self.noise_s = 0.0
        """Time that passes took beyond their stated one."""
        shaken = random.Random(0)

        def shaken_s(rows: int) -> float:
            more_s = pass_s(rows) * math.expm1(shaken.gauss(0, noise))
            self.noise_s += more_s
            return pass_s(rows) + more_s

        self.target = Clockwork(clock, shaken_s, word, 0.003)

    def run(
        self, gamma: Gamma, num_prompts: int = 4, max_tokens: int = 128, num_before: int = 0
    ) -> "Run":
        """Time the prompts, less noise, after `num_before` others that are not timed."""
        engine = Engine(
            self.target, None, self.draft() if gamma else None, gamma=gamma, max_batch_size=16
        )
        prompts = [[number % VOCAB, *PROMPT] for number in range(num_before + num_prompts)]
        params = SamplingParams(max_tokens=max_tokens)
        results: list[GenerationResult] = []
        start = self.clock.now - self.noise_s
        for first in range(0, len(prompts), self.batch):
            if first == num_before:
                start, results = self.clock.now - self.noise_s, []
            results += engine.generate(prompts[first : first + self.batch], params)
        return Run(engine, results, self.clock.now - self.noise_s - start)


class Run:
    def __init__(self, engine: Engine, results: list[GenerationResult], seconds: float) -> None:
        self.engine, self.results, self.seconds = engine, results, seconds
        self.tokens = [result.token_ids for result in results]


def model_draft(
    clock: Clock, alpha: Callable[[int], float], step_s: float, read_s: float = 0.001
) -> Drafter:
    return ModelDrafter(Clockwork(clock, lambda rows: step_s, good_for(alpha), read_s))


class Deep(Clockwork):
    """One whose passes take twice as long with 2,000 tokens held."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        assert isinstance(cache, CountedCache)
        longest = max(cache.length(row) for row in batch.rows)

        def deep_s(rows: int) -> float:
            return flat_s(rows) * (1 + longest / 2000)

        self._pass_s = deep_s
        return super().forward(cache, batch)
