"""What a model of `transformers` can do, tried when it is wrapped and not taken from its name.

A few tokens go through it in the ways that a run may feed them: three at once, one over a cache, in
a ragged pair, after a rollback. Each time its logits must be those of a plain pass over the same
text. What differs is not speculated with, and what cannot even be decoded is refused.

Cost, once a model object: six passes over at most two rows of six tokens for a decoder; the decoder
of an encoder-decoder runs eight times and its encoder four.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from draftsmith.errors import DraftsmithError, ModelFormatError
from draftsmith.models.contract import LanguageModel, ModelTraits
from draftsmith.models.hf.trial import Trial, difference, gist, make_texts

__all__ = ["Candidate", "PlainPass", "first_that_holds"]

_TRIES = 3
"""With other tokens after a difference: a near tie of two experts is no fault of the cache."""
_FOREIGN_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model's own code raises where it is fed in a way that it does not know."""

PlainPass = Callable[[Sequence[int], Sequence[int]], Tensor]
"""Text and source to logits `[tokens, vocab]`, without a cache."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a model."""

    make: Callable[[ModelTraits], LanguageModel]
    can_speculate: bool
    is_lenient: bool = False
    """Whether it is `transformers`' own way to feed a state, and may round as that does."""

    def made(self, traits: ModelTraits, why: str) -> LanguageModel:
        """The model; `why` tells what keeps it from speculating, if it is kept."""
        if self.can_speculate:
            return self.make(traits)
        return self.make(replace(traits, can_rollback=False, why_no_rollback=why))


@dataclass(frozen=True)
class _Verdict:
    index: int
    """Of the candidate that holds."""
    why: str
    """What kept the better ones from it; empty for the best."""


_verdicts: WeakKeyDictionary[Any, dict[tuple[Any, ...], _Verdict]] = WeakKeyDictionary()
"""By model object: other weights may show what these do not."""


def first_that_holds(
    model: Any, traits: ModelTraits, candidates: Sequence[Candidate], plain: PlainPass
) -> LanguageModel:
    """The first way to run a model that says what its plain pass says.

    Args:
        model: A model of `transformers`; its mode and torch's random numbers stay as they are.
        traits: What is known of it beforehand.
        candidates: Ways to run it, the best first. The last one recomputes every text, so it is
            right by definition, and only has to run.
        plain: The pass to compare with.

    Returns:
        The model; its traits say why it does not speculate, if so.

    Raises:
        ModelFormatError: If it runs in none of these ways.
    """
    if model.device.type == "meta":
        return candidates[0].made(traits, traits.why_no_rollback)
    key = (model.dtype, model.device, getattr(model.config, "_attn_implementation", None))
    known = _verdicts.setdefault(model, {})
    if key not in known:
        with _undisturbed(model):
            known[key] = _verdict(model.config, traits, candidates, plain)
    verdict = known[key]
    return candidates[verdict.index].made(traits, traits.why_no_rollback or verdict.why)


def _verdict(
    config: Any, traits: ModelTraits, candidates: Sequence[Candidate], plain: PlainPass
) -> _Verdict:
    whys: list[str] = []
    for index, candidate in enumerate(candidates):
        is_last = index == len(candidates) - 1
        why = _why_not(candidate, config, traits, plain, is_last=is_last)
        if not why:
            return _Verdict(index, whys[0] if whys else "")
        whys.append(why)
    raise ModelFormatError(f"{traits.name} cannot generate here: {whys[0]}")


def _why_not(
    candidate: Candidate, config: Any, traits: ModelTraits, plain: PlainPass, *, is_last: bool
) -> str:
    """Why a candidate does not hold; empty if it does."""
    why = ""
    for number in range(_TRIES):
        texts, sources = make_texts(config, traits, number)
        try:
            model = candidate.made(traits, "-")
            expected = (
                None if is_last else [plain(*pair) for pair in zip(texts, sources, strict=True)]
            )
            why = difference(Trial(model, texts, sources, expected, candidate.is_lenient))
        except torch.OutOfMemoryError:
            raise
        except DraftsmithError as error:
            return str(error)
        except _FOREIGN_FAULTS as error:
            return f"{config.model_type} fails as it is fed here ({gist(error)})"
        if not why:
            return ""
    return f"{config.model_type} {why}"


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Run in evaluation mode and unseen; put mode, hooks and random numbers back afterwards."""
    training = [module for module in model.modules() if module.training]
    # Who counts a model's passes, or records them, means its texts.
    hooks, model._forward_hooks = model._forward_hooks, OrderedDict()
    verbosity = transformers_logging.get_verbosity()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity_error()
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
            model._forward_hooks = hooks
            transformers_logging.set_verbosity(verbosity)
