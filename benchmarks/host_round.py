"""Host time of a round: the engine over a model whose logits are there at once.

    python -m benchmarks.host_round            # writes results/host_round.json

Each case runs with the sampling kernels and with plain torch, in one process.
"""

import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.common import environment, write_result
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Draft, DraftContext, Drafter, ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.kernels.cpu import library, sampling
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows

_NUM_TOKENS = 100
_NUM_REPEATS = 3
_CUTS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}
_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "coupled": {**_CUTS, "seed": 1},
    "block": {**_CUTS, "verifier": "block"},
    "rejection": {**_CUTS, "verifier": "rejection"},
}


class _NoCache(Cache):
    """Counts its rows."""

    def __init__(self) -> None:
        self._rows = 0

    def add(self) -> int:
        self._rows += 1
        return self._rows

    def remove(self, row: int) -> None:
        pass

    def length(self, row: int) -> int:
        return 0

    def rollback(self, row: int, length: int) -> None:
        pass


class Instant(LanguageModel):
    """The same peaked logits everywhere: thirty likely tokens before a normal crowd."""

    device = torch.device("cpu")

    def __init__(self, vocab_size: int) -> None:
        self.traits = ModelTraits("instant", vocab_size, (), None)
        generator = torch.Generator().manual_seed(0)
        row = 2 * torch.randn(vocab_size, generator=generator)
        likely = torch.randint(0, vocab_size, (30,), generator=generator)
        row[likely] += torch.linspace(16, 10, 30)
        self.logits = row.expand(1, 8, vocab_size).contiguous()

    def open_cache(self) -> Cache:
        """An empty cache."""
        return _NoCache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        """The same logits for every token."""
        return self.logits[:, : batch.width]

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Nothing to do."""

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Nothing to do."""


class Likeliest(Drafter):
    """Always drafts the likeliest token, for certain."""

    name = "likeliest"

    def __init__(self, model: Instant) -> None:
        self._token = int(model.logits[0, 0].argmax())

    def propose(self, context: DraftContext) -> Draft:
        """The likeliest token, gamma times."""
        rows = [[self._token] * view.gamma for view in context.sequences]
        return Draft.certain(rows, context.device)


def round_ms(vocab_size: int, drafter: str, mode: dict[str, Any]) -> float:
    """Milliseconds of a round, the best of a few runs."""
    model = Instant(vocab_size)
    draft = {
        "none": lambda: None,
        "certain": lambda: Likeliest(model),
        "model": lambda: ModelDrafter(Instant(vocab_size)),
    }[drafter]()
    params = SamplingParams(max_tokens=_NUM_TOKENS, ignore_eos=True, **mode)
    best = float("inf")
    for _ in range(_NUM_REPEATS):
        engine = Engine(model, draft=draft, gamma=4)
        started = time.perf_counter()
        result = engine.generate([[1, 2, 3]], params)[0]
        seconds = time.perf_counter() - started
        num_rounds = 1 + max(trace.round for trace in result.completions[0].trace)
        best = min(best, 1e3 * seconds / num_rounds)
    return round(best, 4)


def main() -> None:
    """Measure every case and write the results."""
    torch.set_num_threads(library.num_threads())
    cases: list[dict[str, Any]] = []
    for vocab_size, drafter in (
        (49152, "none"),
        (151936, "none"),
        (151936, "certain"),
        (151936, "model"),
    ):
        for name, mode in _MODES.items():
            kernels = round_ms(vocab_size, drafter, mode)
            with mock.patch.object(sampling, "library", return_value=None):
                plain = round_ms(vocab_size, drafter, mode)
            cases.append(
                {
                    "vocab": vocab_size,
                    "draft": drafter,
                    "mode": name,
                    "kernels_ms": kernels,
                    "torch_ms": plain,
                }
            )
            print(cases[-1], flush=True)
    document = {"environment": environment(), "threads": library.num_threads(), "cases": cases}
    print(write_result("host_round", document))


if __name__ == "__main__":
    main()
