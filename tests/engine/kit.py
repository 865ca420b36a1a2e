"""Targets, drafts and small wrappers that the engine's tests share."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import (
    BlockDrafter,
    Drafter,
    FreeDrafter,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
    SequenceView,
)
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.result import GenerationResult
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.load import wrap_model, wrap_tokenizer
from draftsmith.models.tokenizer import Tokenizer
from tests import tiny
from tests.wrapped import Wrapped

PROMPTS = [
    [5, 6, 7, 5, 6],
    [8],
    [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30],
    [40, 41, 40, 41, 40],
    [3, 9, 60],
]


class Ramp(BlockDrafter):
    """One pass for all gamma tokens, with laws that move along with position and last token."""

    name = "ramp"

    def __init__(self, vocab_size: int = tiny.VOCAB) -> None:
        self.logits = torch.linspace(3, -3, vocab_size)

    def block_logits(self, sequences: Sequence[SequenceView], gamma: int) -> Tensor:
        rows = [[view.tokens[-1] + step for step in range(gamma)] for view in sequences]
        return torch.stack([torch.stack([self.logits.roll(by) for by in row]) for row in rows])


class Poisoned(Wrapped):
    """Its logits after one token are poison: one number in them, or all, is `value`."""

    def __init__(self, inner: LanguageModel, token: int, value: float, column: int | None) -> None:
        super().__init__(inner)
        self.token = token
        self.value = value
        self.column = column

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        logits = self.inner.forward(cache, batch).clone()
        is_after = batch.padded(logits.device) == self.token
        columns = slice(None) if self.column is None else self.column
        poisoned = logits.clone()
        poisoned[..., columns] = self.value
        return torch.where(is_after.unsqueeze(-1), poisoned, logits)


@cache
def raw(kind: str) -> Any:
    return tiny.lively_model(kind)


@cache
def target(kind: str) -> LanguageModel:
    return wrap_model(raw(kind), name=f"tiny-{kind}")


@cache
def twin(kind: str) -> LanguageModel:
    """A draft model that is right often."""
    return wrap_model(tiny.near_twin(raw(kind)), name=f"near-{kind}")


@cache
def table(kind: str) -> NgramTable:
    """Bigrams of what the target says itself."""
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=1, ignore_eos=True)
    results = Engine(target(kind)).generate(PROMPTS, params)
    return NgramTable.from_tokens([result.token_ids for result in results], tiny.VOCAB)


DRAFTERS: dict[str, Callable[[str], Drafter]] = {
    "model": lambda kind: ModelDrafter(twin(kind)),
    "self": lambda kind: ModelDrafter(target(kind)),
    "prompt lookup": lambda kind: PromptLookupDrafter(min_ngram=1),
    "bigram": lambda kind: NgramDrafter(table(kind)),
    "random": lambda kind: RandomDrafter(tiny.VOCAB),
    "block": lambda kind: Ramp(),
    "hierarchical": lambda kind: SpeculativeDrafter(
        twin(kind), PromptLookupDrafter(min_ngram=1), inner_gamma=2
    ),
    "free": lambda kind: FreeDrafter(),
}


@cache
def text_tokenizer() -> Tokenizer:
    return wrap_tokenizer(tiny.raw_tokenizer())


@cache
def text_model() -> LanguageModel:
    """A llama that speaks all ids of the tokenizer."""
    size = len(text_tokenizer().token_strings())
    return tiny.model("llama", 3, vocab_size=size)


def texts(results: Sequence[GenerationResult]) -> list[list[tuple[int, ...]]]:
    """Output ids of every sample of every prompt."""
    return [[one.token_ids for one in result.completions] for result in results]
