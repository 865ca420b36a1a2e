"""Numbers that are no numbers, behind the adapter: they stay in the rows that look at them."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.ragged_cache import RaggedCache
from tests import tiny

POISON = 90
TEXT = [(7 * i * i + 3 * i + 5) % 89 for i in range(90)]


def poisoned(kind: str) -> LanguageModel:
    """A model to which one token is NaN; the head, often the same table, is not."""
    raw: Any = tiny.raw_model(kind)

    def spoil(module: Any, given: Any, output: Tensor) -> Tensor:
        return output.masked_fill((given[0] == POISON).unsqueeze(-1), torch.nan)

    is_pair = kind in tiny.ENCODER_DECODER
    table = raw.get_decoder().embed_tokens if is_pair else raw.get_input_embeddings()
    table.register_forward_hook(spoil)
    return wrap_model(raw, name=kind)


def opened(model: LanguageModel, count: int) -> tuple[Cache, list[int]]:
    cache = model.open_cache()
    rows = [cache.add() for _ in range(count)]
    for row in rows:
        if model.traits.is_encoder_decoder:
            model.encode(cache, row, TEXT[:9])
    return cache, rows


def plain(model: LanguageModel) -> Tensor:
    cache, rows = opened(model, 1)
    return model.forward(cache, Rows(rows, [TEXT]))[0]


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("kind", [*tiny.CAUSAL, *tiny.ENCODER_DECODER])
@pytest.mark.parametrize("width", [2, 5, 70])
def test_a_wrong_draft_does_not_reach_the_rows_before_it(kind: str, width: int) -> None:
    model = poisoned(kind)
    clean = plain(model)
    assert bool(clean.isfinite().all())
    place = width // 2
    cache, rows = opened(model, 3)
    for row, past in zip(rows, (3, 10, 10), strict=True):
        model.extend(cache, row, TEXT[:past])
    drafted = TEXT[10 : 10 + width]
    drafted[place] = POISON
    logits = model.forward(cache, Rows(rows, [TEXT[3:5], drafted, TEXT[10:11]]))
    assert close(logits[0, :2], clean[3:5])
    assert close(logits[1, :place], clean[10 : 10 + place])
    assert bool(logits[1, place:].isnan().all())
    assert close(logits[2, :1], clean[10:11])
    # Rolled back, it is no more: neither alone nor beside a longer text.
    cache.rollback(rows[1], 10 + place)
    rest = TEXT[10 + place : 12 + place]
    logits = model.forward(cache, Rows(rows[1:], [rest, TEXT[11:15]]))
    assert close(logits[0, :2], clean[10 + place : 12 + place])
    assert close(logits[1, :4], clean[11:15])


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_text_that_reads_poison_stays_lost(kind: str) -> None:
    model = poisoned(kind)
    cache, rows = opened(model, 1)
    model.extend(cache, rows[0], [*TEXT[:4], POISON, *TEXT[5:8]])
    for token in TEXT[8:10]:
        assert bool(model.forward(cache, Rows(rows, [[token]])).isnan().all())


def test_rows_that_come_one_by_one_take_no_more_slots() -> None:
    """What is noted of a slot must not double for all rows with every row that opens."""
    model = tiny.model("llama")
    cache = model.open_cache()
    assert isinstance(cache, RaggedCache)
    for _ in range(40):
        model.forward(cache, Rows([cache.add()], [[5, 6]]))
    noted = cache._is_finite  # pyright: ignore[reportPrivateUsage] # memory is the point
    assert noted.numel() <= 2 * 40 * 256
