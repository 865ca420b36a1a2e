"""Every text class of `transformers` behind our contract: right, or refused by name.

Each class is built tiny, with random weights. Its texts then go through it in ragged pieces with
rollbacks, and every row of logits is compared with one plain pass over its text.
"""

import argparse
import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from benchmarks.common import RESULTS, environment, write_result
from benchmarks.tiny_classes import VOCAB, TinyClass, tiny_classes, tiny_model
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.recomputed import plain_pass

TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest one."""
_LENGTHS = (30, 11, 23, 17)
_SOURCES = (9, 4, 13, 6)
_LOWEST_ID = 4
_NUM_TEXT = 12
_OWN = "of its own"


@dataclass(frozen=True)
class Outcome:
    """What became of one class."""

    model_type: str
    class_name: str
    is_encoder_decoder: bool
    verdict: str
    """`speculates`, `plain only`, `refused`, `wrong`, `crashed` or `not built`."""
    runs_as: str = ""
    why: str = ""
    difference: float = 0.0
    num_compared: int = 0
    text: str = ""
    """Whose greedy text it is, with drafts and without: `generate's`, `generate's without its
    cache` where its own two differ, or `of its own`; empty if it has none."""


def main() -> None:
    """Try every class and write the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[], help="model types")
    parser.add_argument("--merge", action="store_true", help="put them into an earlier result")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    outcomes: list[Outcome] = []
    for one in tiny_classes():
        if not options.only or one.model_type in options.only:
            outcomes.append(try_class(one))
            print(outcomes[-1])
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(dict(counts))
    if counts["wrong"] or counts["crashed"]:
        raise SystemExit("a class was wrong or crashed: its outcome stands above")
    name = f"model_classes_{transformers.__version__}"
    tried = [asdict(outcome) for outcome in outcomes]
    if options.only:
        if options.merge:
            _merge(name, tried)
        return
    document = {
        "environment": environment(),
        "transformers": transformers.__version__,
        "tolerance": TOLERANCE,
        "counts": counts,
        "classes": tried,
    }
    write_result(name, document)


def _merge(name: str, tried: list[dict[str, Any]]) -> None:
    """Put classes that were tried again into the result of a whole run, and say which and when."""
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    again = {one["class_name"]: one for one in tried}
    document["classes"] = [again.get(one["class_name"], one) for one in document["classes"]]
    document["counts"] = Counter(one["verdict"] for one in document["classes"])
    document.setdefault("tried_again", []).append(
        {"environment": environment(), "classes": sorted(again)}
    )
    write_result(name, document)


def try_class(one: TinyClass) -> Outcome:
    """Build a class, wrap it and compare."""
    try:
        model = tiny_model(one)
    except Exception as error:  # a class that cannot be built tiny says nothing of us
        return Outcome(*one, verdict="not built", why=_gist(error))
    try:
        wrapped = wrap_model(model, one.model_type)
        verdict = "speculates" if wrapped.traits.can_rollback else "plain only"
        difference, compared = worst_difference(model, wrapped)
        text = whose_text(model, wrapped)
    except DraftsmithError as error:
        return Outcome(*one, verdict="refused", why=str(error))
    except Exception as error:  # what must not happen, and is counted
        return Outcome(*one, verdict="crashed", why=_gist(error))
    if not difference <= TOLERANCE or text == _OWN:
        verdict = "wrong"
    kind = type(wrapped).__name__
    why = wrapped.traits.why_no_rollback
    return Outcome(*one, verdict, kind, why, difference, compared, text)


def worst_difference(model: Any, wrapped: LanguageModel) -> tuple[float, int]:
    """The largest difference of ragged pieces from plain passes, and the rows compared."""
    torch.manual_seed(0)
    chance = random.Random(0)
    texts = [_ids(chance, length) for length in _LENGTHS]
    pair = wrapped.traits.is_encoder_decoder
    sources = [_ids(chance, length) if pair else [] for length in _SOURCES]
    cache = wrapped.open_cache()
    rows = [cache.add() for _ in texts]
    for row, source in zip(rows, sources, strict=True):
        if source:
            wrapped.encode(cache, row, source)
    differences: list[float] = []
    for batch, starts in _pieces(chance, wrapped, cache, rows, texts):
        logits = wrapped.forward(cache, batch)
        for row, tokens, start, line in zip(batch.rows, batch.tokens, starts, logits, strict=True):
            index = rows.index(row)
            for offset in range(len(tokens)):
                prefix = texts[index][: start + offset + 1]
                expected = plain_pass(model, prefix, sources[index])[-1].float()
                largest = max(1.0, float(expected.abs().max()))
                differences.append(float((line[offset].float() - expected).abs().max()) / largest)
    return max(differences), len(differences)


def whose_text(model: Any, wrapped: LanguageModel) -> str:
    """Whose greedy text ours is, whatever is drafted."""
    prompt = _ids(random.Random(1), 9)
    drafts = [None, RandomDrafter(VOCAB)] if wrapped.traits.can_rollback else [None]
    params = SamplingParams(max_tokens=_NUM_TEXT)
    ours = {
        Engine(wrapped, draft=draft, gamma=3 if draft else 0).generate(prompt, params)[0].token_ids
        for draft in drafts
    }
    for use_cache, name in ((True, "generate's"), (False, "generate's without its cache")):
        try:
            theirs = _text_of_generate(model, prompt, use_cache=use_cache)
        except Exception:  # theirs to answer for, and some classes have no generate
            return ""
        if ours == {theirs}:
            return name
    # Handed their encoder's output alone, as `generate` hands it, some have no causal mask.
    law = _text_of_passes(model, prompt, pair=wrapped.traits.is_encoder_decoder)
    return "plain passes'" if ours == {law} else _OWN


def _text_of_passes(model: Any, prompt: list[int], *, pair: bool) -> tuple[int, ...]:
    """The greedy text of passes of the whole model over the whole text."""
    start = [model.generation_config.decoder_start_token_id] if pair else prompt
    source = prompt if pair else []
    text: list[int] = []
    for _ in range(_NUM_TEXT):
        text.append(int(plain_pass(model, [*start, *text], source)[-1].argmax()))
    return tuple(text)


def _text_of_generate(model: Any, prompt: list[int], *, use_cache: bool) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    text = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=_NUM_TEXT,
        do_sample=False,
        num_beams=1,
        use_cache=use_cache,
    )[0].tolist()
    return tuple(text[1:] if model.config.is_encoder_decoder else text[len(prompt) :])


def _pieces(
    chance: random.Random, wrapped: LanguageModel, cache: Any, rows: list[int], texts: Any
) -> Iterator[tuple[Rows, list[int]]]:
    """Passes over random rows; some of them are rolled back, and read again."""
    for row, text in zip(rows, texts, strict=True):
        wrapped.prefill(cache, row, text[: chance.randint(0, 9)])
    while live := [i for i, row in enumerate(rows) if cache.length(row) < len(texts[i])]:
        batch = chance.sample(live, chance.randint(1, len(live)))
        starts = [cache.length(rows[i]) for i in batch]
        widest = 5 if wrapped.traits.can_rollback else 1
        counts = [
            min(chance.randint(1, widest), len(texts[i]) - start)
            for i, start in zip(batch, starts, strict=True)
        ]
        tokens = [texts[i][s : s + n] for i, s, n in zip(batch, starts, counts, strict=True)]
        yield Rows([rows[i] for i in batch], tokens), starts
        for i, start in zip(batch, starts, strict=True):
            if wrapped.traits.can_rollback and chance.random() < 0.4:
                cache.rollback(rows[i], chance.randint(max(0, start - 1), cache.length(rows[i])))


def _ids(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(_LOWEST_ID, 90) for _ in range(count)]


def _gist(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


if __name__ == "__main__":
    main()
