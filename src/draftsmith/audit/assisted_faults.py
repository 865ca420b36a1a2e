"""Faults of `transformers`' own assisted generation, each tried on toy models in under a second.

All were seen in transformers 5.23.0 and 5.24.0; `docs/transformers.md` says what each does, and
what `draftsmith.transformers.generate` does there.
"""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from draftsmith.audit.record import Grid, Record
from draftsmith.models.hf.arguments import cache_argument
from draftsmith.models.hf.toy import new_toy_cache, toy_model, toy_tokenizer

__all__ = ["FAULTS", "Fault", "Finding", "faults_record"]

_VOCAB, _NUM_TOKENS, _NUM_WORLDS = 64, 16, 3
_PROMPT = [5, 6, 7, 8, 5, 6, 7]


class Finding(NamedTuple):
    """What a probe saw."""

    is_present: bool | None
    """None if it could not be tried."""
    detail: str


class Fault(NamedTuple):
    """One fault, and how it is looked for."""

    name: str
    title: str
    probe: Callable[[], Finding]


def faults_record() -> Record:
    """Which of the known faults the installed `transformers` has."""
    with _quiet(), torch.random.fork_rng(devices=[]):
        found = {fault: fault.probe() for fault in FAULTS}
    present = [fault for fault, finding in found.items() if finding.is_present]
    untried = sum(finding.is_present is None for finding in found.values())
    words = {True: "present", False: "absent", None: "not tried"}
    rows = [
        [fault.title, words[finding.is_present], finding.detail] for fault, finding in found.items()
    ]
    return Record(
        "assisted-faults",
        "Known faults beside assistance",
        "info",
        f"transformers {version('transformers')} has {len(present)} of {len(FAULTS)} known faults "
        f"in options beside an assistant ({untried} not tried). The texts above use none of them.",
        "The named faults, on toy models; nothing else.",
        {
            "version": version("transformers"),
            "faults": {
                fault.name: {"is_present": finding.is_present, "detail": finding.detail}
                for fault, finding in found.items()
            },
        },
        [Grid("Tried on toy models", ["fault", "here", "seen"], rows)],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings and notes about toys."""
    notes = logging.getLogger("transformers")
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(level)


def _generate(model: Any, **options: Any) -> Any:
    ids = torch.tensor([_PROMPT])
    given = {"max_new_tokens": _NUM_TOKENS, "do_sample": False, "eos_token_id": None} | options
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given)


def _worlds() -> Iterator[tuple[Any, Any]]:
    """Targets and other models as their drafts."""
    for seed in range(_NUM_WORLDS):
        yield toy_model(_VOCAB, seed), toy_model(_VOCAB, 100 + seed)


def _differing(pairs: Sequence[tuple[Tensor, Tensor]], what: str) -> Finding:
    """Present if a greedy text is not plain generation's."""
    count = sum(not torch.equal(plain, assisted) for plain, assisted in pairs)
    return Finding(count > 0, f"{count} of {len(pairs)} greedy texts differ {what}")


def _guidance() -> Finding:
    pairs = [
        (
            _generate(target, guidance_scale=1.5),
            _generate(target, guidance_scale=1.5, assistant_model=draft),
        )
        for target, draft in _worlds()
    ]
    return _differing(pairs, "with guidance_scale=1.5 and an assistant")


class _Automaton:
    """Moves on by the last token of each call, as structured-output processors do."""

    def __init__(self) -> None:
        self.state: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Allow eight ids by the state."""
        is_first = self.state is None
        self.state = 0 if is_first else (3 * (self.state or 0) + int(input_ids[0, -1]) + 1) % 8
        allowed = [self.state * 8 + offset for offset in range(8)]
        masked = torch.full_like(scores, -torch.inf)
        masked[:, allowed] = scores[:, allowed]
        return masked


def _state() -> Finding:
    pairs = [
        (
            _generate(target, logits_processor=[_Automaton()]),
            _generate(target, logits_processor=[_Automaton()], assistant_model=target),
        )
        for target, _ in _worlds()
    ]
    return _differing(pairs, "with a processor that moves on by each call")


def _filled_cache() -> Finding:
    pairs: list[tuple[Tensor, Tensor]] = []
    for target, _ in _worlds():
        name = cache_argument(target, "toy")
        texts = [
            _generate(target, **{name: _half_read(target, name)}, **drafts)
            for drafts in ({}, {"prompt_lookup_num_tokens": 3})
        ]
        pairs.append((texts[0], texts[1]))
    return _differing(pairs, "after a filled cache with prompt lookup")


def _half_read(model: Any, name: str) -> Any:
    cache = new_toy_cache(model)
    with torch.no_grad():
        model(torch.tensor([_PROMPT[:4]]), **{name: cache})
    return cache


def _hidden_states() -> Finding:
    target = toy_model(_VOCAB, 1)
    options = {"return_dict_in_generate": True, "output_hidden_states": True}
    plain = _generate(target, **options).hidden_states
    assisted = _generate(target, **options, assistant_model=target).hidden_states
    wrong = [
        index
        for index, (one, other) in enumerate(zip(plain, assisted, strict=False))
        if one[-1].shape != other[-1].shape or not torch.allclose(one[-1], other[-1], atol=1e-4)
    ]
    return Finding(bool(wrong), f"hidden_states of tokens {wrong[:4]} are not plain generation's")


def _cut_draft() -> Finding:
    words = [f"w{index}" for index in range(_VOCAB)]
    target, draft = toy_model(_VOCAB, 1), toy_model(48, 2)
    own = [*words[:40], *(f"other{index}" for index in range(8))]
    before = draft.get_output_embeddings()
    _generate(
        target,
        do_sample=True,
        assistant_model=draft,
        tokenizer=toy_tokenizer(words),
        assistant_tokenizer=toy_tokenizer(own),
    )
    after = draft.get_output_embeddings()
    with torch.no_grad():
        width = draft(torch.tensor([_PROMPT])).logits.shape[-1]
    return Finding(
        after is not before, f"the draft model's own logits have {width} columns afterwards, not 48"
    )


def _padded_draft() -> Finding:
    words = toy_tokenizer([f"w{index}" for index in range(_VOCAB)])
    options = {"assistant_model": toy_model(72, 2), "tokenizer": words}
    try:
        _generate(toy_model(_VOCAB, 1), do_sample=True, assistant_tokenizer=words, **options)
    except (AttributeError, IndexError, RuntimeError, ValueError) as error:
        return Finding(True, f"{type(error).__name__}: {error}")
    return Finding(False, "it samples")


def _scikit_learn() -> Finding:
    if importlib.util.find_spec("sklearn") is None:
        return Finding(None, "scikit-learn is not installed")
    texts: list[list[list[int]]] = []
    for pretends in (False, True):
        with _without_scikit_learn(pretends):
            texts.append([_seeded_text(seed) for seed in range(8)])
    count = sum(one != other for one, other in zip(*texts, strict=True))
    return Finding(count > 0, f"{count} of 8 seeds sample another text without scikit-learn")


def _seeded_text(seed: int) -> list[int]:
    torch.manual_seed(seed)
    drafts = {"assistant_model": toy_model(_VOCAB, 2)}
    return _generate(toy_model(_VOCAB, 1), do_sample=True, max_new_tokens=24, **drafts)[0].tolist()


@contextmanager
def _without_scikit_learn(pretends: bool) -> Iterator[None]:
    """Let `transformers` believe that it is not installed."""
    module = sys.modules["transformers.generation.candidate_generator"]
    name = "is_sklearn_available"
    own = getattr(module, name)
    setattr(module, name, (lambda: False) if pretends else own)
    try:
        yield
    finally:
        setattr(module, name, own)


FAULTS = (
    Fault("guidance", "guidance_scale under a draft changes greedy text", _guidance),
    Fault("state", "a processor that keeps a state runs ahead of the text", _state),
    Fault("filled-cache", "a filled cache is fed the whole prompt again", _filled_cache),
    Fault("hidden-states", "hidden states belong to other tokens", _hidden_states),
    Fault("cut-draft", "a draft of another vocabulary is cut for good", _cut_draft),
    Fault("padded-draft", "a draft padded to another size cannot sample", _padded_draft),
    Fault("scikit-learn", "installing scikit-learn changes a seed's text", _scikit_learn),
)
