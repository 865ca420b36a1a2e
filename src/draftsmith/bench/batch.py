"""One batch through one engine, with the time of every token."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.control.contract import Ledger
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError

__all__ = ["Batch", "Request", "run_batch"]


@dataclass
class Request:
    """One prompt of a batch."""

    num_first_tokens: int = 0
    """Tokens of its first round, which come with the prompt's reading."""
    num_tokens: int = 0
    decode_s: float = 0.0
    """From its first tokens to its last."""
    shares: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    """After the first round: (seconds per token, tokens) of each round."""
    token_ids: tuple[int, ...] = ()
    text: str = ""
    statistics: SpeculationStatistics = field(default_factory=SpeculationStatistics)
    ledger: Ledger | None = None

    @property
    def num_decode_tokens(self) -> int:
        """Tokens after those of the first round."""
        return self.num_tokens - self.num_first_tokens


@dataclass
class Batch:
    """Prompts that were run together, in one round of a benchmark."""

    round: int
    number: int
    """Which batch of the workload."""
    requests: list[Request]
    first_s: float
    """Until the first round's tokens: the prompts, and one round."""
    wall_s: float

    @property
    def decode_s(self) -> float:
        """From the first round's tokens to the last token of all."""
        return self.wall_s - self.first_s

    @property
    def num_tokens(self) -> int:
        """Of all requests."""
        return sum(one.num_tokens for one in self.requests)

    @property
    def num_decode_tokens(self) -> int:
        """Of all requests, after the first round."""
        return sum(one.num_decode_tokens for one in self.requests)

    @property
    def key(self) -> tuple[int, int]:
        """What the batch of another arm must share to be compared."""
        return self.round, self.number


def run_batch(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    round: int,
    number: int,
) -> Batch:
    """Generate for some prompts together.

    Args:
        engine: Holds at least as many sequences at once as there are prompts.
        prompts: Token ids, so that no tokenizer is timed.
        params: One for each.
        round: The benchmark's round.
        number: The number of the batch.

    Raises:
        DraftsmithError: If one of the requests failed.
    """
    requests = [Request() for _ in prompts]
    last = [0.0] * len(prompts)
    start = time.perf_counter()
    run = engine.start([list(ids) for ids in prompts], list(params))
    first = None
    for event in run:
        now = time.perf_counter()
        first = first or now
        request, count = requests[event.prompt_index], len(event.tokens)
        if request.num_tokens == 0:
            request.num_first_tokens = count
            last[event.prompt_index] = now
        elif count:
            took = now - last[event.prompt_index]
            request.shares.append((took / count, count))
            request.decode_s += took
            last[event.prompt_index] = now
        request.num_tokens += count
    end = time.perf_counter()
    for request, result in zip(requests, run.results(), strict=True):
        if result.error is not None:
            raise DraftsmithError(result.error)
        request.token_ids, request.text = result.token_ids, result.text
        request.statistics = result.statistics
        request.ledger = result.ledger
    return Batch(round, number, requests, (first or end) - start, end - start)
