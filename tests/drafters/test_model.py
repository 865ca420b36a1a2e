"""A model as the draft: after any history its logits are those of a fresh run."""

from collections.abc import Sequence
from functools import cache
from random import Random

import pytest
import torch
from torch import Tensor

from draftsmith.drafters import ModelDrafter, NgramDrafter, NgramTable
from draftsmith.models.contract import Cache, LanguageModel, Rows
from tests import tiny
from tests.drafters.recording import Recording, view
from tests.wrapped import Wrapped


@cache
def model(kind: str, vocab_size: int = tiny.VOCAB) -> LanguageModel:
    return tiny.model(kind, 3, vocab_size=vocab_size)


def in_one_pass(one: LanguageModel, tokens: Sequence[int], source: Sequence[int] = ()) -> Tensor:
    cache_ = one.open_cache()
    row = cache_.add()
    if source:
        one.encode(cache_, row, source)
    return one.forward(cache_, Rows([row], [tokens]))[0]


def assert_fresh(one: LanguageModel, context: Recording, row: int, drawn: Sequence[int]) -> None:
    """The logits shown for a row are those of its tokens and of what was drawn after them."""
    sequence = context.sequences[row]
    shown = context.logits_of(row)
    assert len(shown) == sequence.gamma
    if not shown:
        return
    tokens = [*sequence.tokens, *drawn[: sequence.gamma - 1]]
    expected = in_one_pass(one, tokens, sequence.source)[len(sequence.tokens) - 1 :]
    torch.testing.assert_close(torch.stack(shown), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral-sliding", "gpt2", "bloom-alibi", "t5", "bart"])
def test_after_any_rejections_its_logits_are_those_of_a_fresh_run(kind: str) -> None:
    chance, drafter = Random(0), ModelDrafter(model(kind))
    is_pair = kind in tiny.ENCODER_DECODER
    texts = [[chance.randrange(tiny.VOCAB) for _ in range(length)] for length in (1, 4, 9)]
    sources = [[chance.randrange(2, tiny.VOCAB) for _ in range(4 + 3 * i)] for i in range(3)]
    for _ in range(6):
        views = [
            view(text, chance.randint(0, 4), i, sources[i] if is_pair else ())
            for i, text in enumerate(texts)
        ]
        drawn = [[chance.randrange(tiny.VOCAB) for _ in range(4)] for _ in texts]
        context = Recording(views, drawn)
        drafter.propose(context)
        for row, text in enumerate(texts):
            assert_fresh(model(kind), context, row, drawn[row])
            kept = chance.randint(0, views[row].gamma)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(tiny.VOCAB)]


def test_only_the_new_tokens_are_run_after_a_round() -> None:
    one = model("llama")
    widths: list[int] = []

    class Watched(Wrapped):
        def forward(self, cache: Cache, batch: Rows) -> Tensor:
            widths.append(batch.width)
            return super().forward(cache, batch)

    drafter = ModelDrafter(Watched(one))
    text = [5, 6, 7]
    drafter.propose(Recording([view(text, 3)], [[10, 11, 12]]))
    assert widths == [1, 1, 1]
    widths.clear()
    # Two drafts kept: their keys are there, so only the emitted token is fed.
    drafter.propose(Recording([view([*text, 10, 11, 20], 2)]))
    assert widths == [1, 1]
    widths.clear()
    # All kept: the last draft was drawn but never fed.
    drafter.propose(Recording([view([*text, 10, 11, 20, 0, 0, 21], 1)]))
    assert widths == [2]


def test_sequences_come_and_go_and_wait() -> None:
    drafter = ModelDrafter(model("gpt2"))
    for batch in ([0], [0, 1, 2], [2], [1, 0], [3], [0, 3]):
        views = [view([10 * id, 5, 6, *range(id)], 2, id) for id in batch]
        context = Recording(views)
        drafter.propose(context)
        for row in range(len(batch)):
            assert_fresh(model("gpt2"), context, row, [0, 0])


def test_a_sequence_that_wants_nothing_is_not_run() -> None:
    context = Recording([view([5, 6], 0, 1), view([5, 6, 7], 1, 2)])
    draft = ModelDrafter(model("llama")).propose(context)
    assert [call.rows for call in context.calls] == [[1]]
    assert draft.num_drafted.tolist() == [0, 1]


def test_nothing_wanted_of_anyone_runs_nothing() -> None:
    context = Recording([view([5, 6], 0)])
    assert ModelDrafter(model("llama")).propose(context).num_drafted.tolist() == [0]
    assert context.calls == []


def test_a_sequence_at_the_end_of_the_drafts_context_is_left_out() -> None:
    context = Recording([view([5] * 125, 4, 1), view([5] * 124, 4, 2)])
    draft = ModelDrafter(model("llama")).propose(context)  # a context of 128
    assert draft.num_drafted.tolist() == [0, 4]


def test_an_id_that_the_draft_does_not_have_is_no_trouble() -> None:
    small = model("llama", vocab_size=40)
    context = Recording([view([5, 70, 6], 3)], [[41, 7, 8]])
    draft = ModelDrafter(small).propose(context)
    assert draft.num_drafted.tolist() == [3]
    assert all(bool(logits.isfinite().all()) for logits in context.logits_of(0))


def test_a_table_walks_from_the_token_that_was_drawn() -> None:
    table = NgramTable.from_tokens([[0, 1, 2, 3, 4, 0, 2]], 5)
    context = Recording([view([3, 0], 3, 1), view([1], 1, 2)], [[2, 3, 4], [0]])
    NgramDrafter(table).propose(context)
    for shown, last in zip(context.logits_of(0), (0, 2, 3), strict=True):
        torch.testing.assert_close(shown.exp(), table.law(last))
    torch.testing.assert_close(context.logits_of(1)[0].exp(), table.law(1))
