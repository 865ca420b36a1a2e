"""The passes of a probe, and what is numerics in their logits."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows

__all__ = ["Trial", "difference", "gist", "make_texts"]

_NUM_TOKENS = 6
_NUM_SOURCES = (5, 3)
_FULL_PRECISION_SHARE = 1e-3
_HALF_PRECISION_SHARE = 5e-2
_LARGEST_LOGIT = 1e30
"""Larger ones are masks."""
_LONGEST_GIST = 160


@dataclass(frozen=True)
class Trial:
    """A model to try, with two texts."""

    model: LanguageModel
    texts: Sequence[Sequence[int]]
    sources: Sequence[Sequence[int]]
    expected: Sequence[Float[Tensor, "tokens vocab"]] | None
    """Logits of a plain pass over each text; None where the model itself is the plain pass."""
    is_lenient: bool = False
    """Whether the model is fed as `transformers` itself feeds it, whose recurrent kernels for many
    tokens and for one need not agree in the last digits."""

    def open(self) -> tuple[Cache, list[int]]:
        """A cache with a row for each text."""
        cache = self.model.open_cache()
        rows = [cache.add() for _ in self.texts]
        for row, source in zip(rows, self.sources, strict=True):
            if source:
                self.model.encode(cache, row, source)
        return cache, rows

    def is_alike(self, logits: Float[Tensor, "rows vocab"], text: int, start: int) -> bool:
        """Whether these follow the tokens of a text from `start` on, but for numerics."""
        if self.expected is None:
            return True
        expected = self.expected[text][start : start + len(logits)].float()
        if logits.shape != expected.shape:
            return False
        is_full = logits.dtype in (torch.float32, torch.float64) and not self.is_lenient
        share = _FULL_PRECISION_SHARE if is_full else _HALF_PRECISION_SHARE
        return _is_numerics(logits.float(), expected, share)


def _is_numerics(logits: Tensor, expected: Tensor, share: float) -> bool:
    """Whether they differ by no more than that share of what the logits span."""
    counted = expected.isfinite() & (expected.abs() < _LARGEST_LOGIT)
    if not bool(counted.any()):
        return True  # a model without numbers shows nothing; generating with it says so
    spread = expected[counted].max() - expected[counted].min()
    return bool((logits - expected)[counted].abs().max() <= share * spread)


def difference(trial: Trial) -> str:
    """In which pass the model says something else than its plain pass; empty if in none."""
    traits = trial.model.traits
    if trial.expected is not None:
        for expected, text in zip(trial.expected, trial.texts, strict=True):
            if len(expected) != len(text):
                return f"gives {len(expected)} rows of logits for {len(text)} tokens"
    passes = _speculated if traits.can_rollback else _plain
    return next((why for is_alike, why in passes(trial) if not is_alike), "")


def _speculated(trial: Trial) -> Iterator[tuple[bool, str]]:
    cache, (first, second) = trial.open()
    one, other = trial.texts
    at_once = trial.model.forward(cache, Rows([first], [one[:3]]))[0]
    yield trial.is_alike(at_once, 0, 0), "gives other logits for three tokens at once"
    rejected = [one[3], one[0]]
    pair = trial.model.forward(cache, Rows([first, second], [rejected, other[:3]]))
    yield trial.is_alike(pair[0, :1], 0, 3), "gives other logits over a cache"
    yield trial.is_alike(pair[1], 1, 0), "gives other logits to a row beside a longer one"
    cache.rollback(first, 4)
    alone = trial.model.forward(cache, Rows([first], [one[4:5]]))[0]
    yield trial.is_alike(alone, 0, 4), "gives other logits after a rollback"
    cache.rollback(second, 2)
    pair = trial.model.forward(cache, Rows([second, first], [other[2:4], one[5:]]))
    yield trial.is_alike(pair[0], 1, 2), "gives other logits after a rollback beside another row"
    yield trial.is_alike(pair[1, :1], 0, 5), "gives other logits to a row beside a shorter one"


def _plain(trial: Trial) -> Iterator[tuple[bool, str]]:
    cache, (first, second) = trial.open()
    one, other = trial.texts
    trial.model.prefill(cache, first, one[:3])
    for start in (3, 4):
        logits = trial.model.forward(cache, Rows([first], [one[start : start + 1]]))[0]
        yield trial.is_alike(logits, 0, start), "gives other logits over a cache"
    trial.model.prefill(cache, second, other[:2])
    pair = trial.model.forward(cache, Rows([second, first], [other[2:3], one[5:]]))
    yield trial.is_alike(pair[1], 0, 5), "gives other logits over a cache"
    yield trial.is_alike(pair[0], 1, 2), "gives other logits in a second row"


def make_texts(
    config: Any, traits: ModelTraits, number: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Two texts and their sources, without the ids that a config gives a meaning."""
    special = {value for name, value in _numbers(config) if name.endswith(("_id", "_index"))}
    special |= set(traits.eos_token_ids)
    wanted = 4 * _NUM_TOKENS
    step = max(1, traits.vocab_size // wanted)
    start = number * max(1, step // 3)
    ids = [(start + index * step) % traits.vocab_size for index in range(2 * wanted)]
    plain = [one for one in ids if one not in special] or [0]
    draw = (plain[index % len(plain)] for index in range(10**9))
    texts = [[next(draw) for _ in range(_NUM_TOKENS)] for _ in range(2)]
    num_sources = _NUM_SOURCES if traits.is_encoder_decoder else (0, 0)
    return texts, [[next(draw) for _ in range(count)] for count in num_sources]


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    for name, value in config.get_text_config(decoder=True).to_dict().items():
        if isinstance(value, int):
            yield name, value
    for name, value in vars(config).items():
        if isinstance(value, int):
            yield name, value


def gist(error: Exception) -> str:
    """What a library's long message comes to, in one line."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST_GIST else f"{text[: _LONGEST_GIST - 1]}…"
