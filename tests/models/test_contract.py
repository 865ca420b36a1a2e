"""Every family of models through the contract, and its greedy text beside transformers' own."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, NotRollbackableError
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.ragged_cache import RaggedCache
from draftsmith.testing import check_model
from tests import tiny
from tests.wrapped import Wrapped

FAMILIES = (*tiny.CAUSAL, *tiny.ENCODER_DECODER)
PROMPTS = ([5, 6, 7, 5, 6], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17], [3])


@cache
def raw(kind: str) -> Any:
    return tiny.lively_model(kind)


@cache
def target(kind: str) -> LanguageModel:
    return wrap_model(raw(kind), name=f"tiny-{kind}")


# --- the contract ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_keeps_the_contract(kind: str) -> None:
    check_model(target(kind))


def test_a_recurrent_model_keeps_the_contract_but_for_rollback() -> None:
    check_model(target("mamba"))


class RowOffByOne(Wrapped):
    """Hands out the logits of the token before."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        return super().forward(cache, batch).roll(1, dims=1)


class SwapsRows(Wrapped):
    """Answers in the order of the cache's rows, not in that of the batch."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        order = sorted(range(len(batch.rows)), key=lambda i: batch.rows[i])
        return super().forward(cache, batch)[order]


class ForgetsNothing(Wrapped):
    """Its rollback counts down, but leaves the rejected token as a column that is attended to."""

    class Rows(RaggedCache):
        def rollback(self, row: int, length: int) -> None:
            self._lengths[row] = min(self._lengths[row], length + 1)

    def open_cache(self) -> Cache:
        return ForgetsNothing.Rows()


class NoLeftPadding(Wrapped):
    """Lets short rows attend to the padding before them."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        assert isinstance(cache, RaggedCache)
        most = max(cache.length(row) for row in batch.rows)
        lengths = dict(cache._lengths)
        cache._lengths |= dict.fromkeys(batch.rows, most)
        logits = super().forward(cache, batch)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache._lengths[row] = lengths[row] + len(tokens)
        return logits


class ExtendsOnlyOnce(Wrapped):
    """Drops all but the first chunk that comes without logits."""

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        if cache.length(row) == 0:
            super().extend(cache, row, tokens)


class SaysNan(Wrapped):
    """Every logit is NaN, and so is every difference."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        return super().forward(cache, batch) * torch.nan


class SaysTooMuch(Wrapped):
    """More columns than its traits say."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        return torch.nn.functional.pad(super().forward(cache, batch), (0, 1))


class OneSource(Wrapped):
    """Encodes a source of its own choice for every row."""

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        super().encode(cache, row, [9 + row])


@pytest.mark.parametrize(
    ("kind", "broken", "why"),
    [
        ("llama", RowOffByOne, "logits after a chunk"),
        ("llama", SwapsRows, "of a row in a ragged pass"),
        ("llama", ForgetsNothing, "rolled back to"),
        ("llama", NoLeftPadding, "of a row in a ragged pass"),
        ("llama", ExtendsOnlyOnce, "a row of"),
        ("llama", SaysNan, "differ by nan"),
        ("llama", SaysTooMuch, "logits are"),
        ("t5", OneSource, "of a row in a ragged pass"),
    ],
)
def test_a_broken_model_is_caught(
    kind: str, broken: Callable[[LanguageModel], LanguageModel], why: str
) -> None:
    with pytest.raises(AssertionError, match=why) as caught:
        check_model(broken(target(kind)))
    assert "\n" not in str(caught.value)


def test_a_model_that_should_refuse_rollback_but_does_not_is_caught() -> None:
    liar = Wrapped(target("llama"))
    liar.traits = replace(liar.traits, can_rollback=False)
    with pytest.raises(AssertionError, match="rollback does not raise"):
        check_model(liar)


# --- rung 4: an independent implementation --------------------------------------------------


def transformers_text(kind: str, prompt: list[int], max_tokens: int) -> tuple[int, ...]:
    """Greedy output ids of the library's own `generate`."""
    model = raw(kind)
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_tokens,
        num_beams=1,
    )[0].tolist()
    return tuple(output[1:] if model.config.is_encoder_decoder else output[len(prompt) :])


@pytest.mark.parametrize("gamma", [0, 3])
@pytest.mark.parametrize("kind", FAMILIES)
def test_greedy_text_is_that_of_transformers(kind: str, gamma: int) -> None:
    draft = ModelDrafter(wrap_model(tiny.near_twin(raw(kind))))
    engine = Engine(target(kind), draft=draft, gamma=gamma)
    results = engine.generate(PROMPTS, SamplingParams(max_tokens=24))
    expected = [transformers_text(kind, prompt, 24) for prompt in PROMPTS]
    assert [result.token_ids for result in results] == expected
    assert len({token for text in expected for token in text}) >= 4, "the same over and over"
    if gamma:
        total = results[0].statistics + results[1].statistics
        assert 0 < total.num_accepted < total.num_tested, "all kept, or all rejected"


def test_a_recurrent_model_says_at_gamma_0_what_transformers_says() -> None:
    results = Engine(target("mamba")).generate(PROMPTS, SamplingParams(max_tokens=12))
    expected = [transformers_text("mamba", prompt, 12) for prompt in PROMPTS]
    assert [result.token_ids for result in results] == expected


# --- what cannot be undone ------------------------------------------------------------------


@pytest.mark.parametrize("role", ["target", "draft"])
def test_a_recurrent_model_is_refused_for_speculation_by_name(role: str) -> None:
    mamba, llama = target("mamba"), target("llama")
    pair = (mamba, llama) if role == "target" else (llama, mamba)
    with pytest.raises(NotRollbackableError) as caught:
        Engine(pair[0], draft=ModelDrafter(pair[1]), gamma=2)
    message = str(caught.value)
    assert "tiny-mamba" in message
    assert "recurrent state" in message
    assert "gamma=0" in message
    assert "\n" not in message


def test_a_recurrent_model_runs_at_gamma_0_with_a_drafter_given() -> None:
    plain = Engine(target("mamba")).generate(PROMPTS, SamplingParams(max_tokens=6))
    engine = Engine(target("mamba"), draft=RandomDrafter(tiny.VOCAB), gamma=0)
    results = engine.generate(PROMPTS, SamplingParams(max_tokens=6))
    assert [one.token_ids for one in results] == [one.token_ids for one in plain]


# --- windows, sources, contexts -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mistral-sliding", "gemma2-sliding"])
def test_a_sliding_window_slides_under_speculation_as_well(kind: str) -> None:
    prompt = list(range(5, 45))  # the window is 6
    engine = Engine(target(kind), draft=RandomDrafter(tiny.VOCAB), gamma=4)
    result = engine.generate(prompt, SamplingParams(max_tokens=40))[0]
    assert result.token_ids == transformers_text(kind, prompt, 40)
    wide = copy.deepcopy(raw(kind))
    wide.config.sliding_window = 128
    assert Engine(wrap_model(wide)).generate(prompt, SamplingParams(max_tokens=40))[
        0
    ].token_ids != (result.token_ids), "the window made no difference, so nothing was shown"


@pytest.mark.parametrize("kind", tiny.ENCODER_DECODER)
def test_sources_of_different_lengths_share_a_batch(kind: str) -> None:
    sources = [[7], list(range(30, 60)), [8, 9, 10], [11] * 17]
    params = SamplingParams(max_tokens=16, temperature=0.8, seed=5)
    draft = ModelDrafter(wrap_model(tiny.near_twin(raw(kind))))
    together = Engine(target(kind), draft=draft, gamma=3).generate(sources, params)
    alone = [Engine(target(kind)).generate(source, params)[0] for source in sources]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({one.token_ids for one in alone}) == len(sources), "the sources must matter"


@pytest.mark.parametrize("kind", tiny.ENCODER_DECODER)
def test_sources_that_follow_each_other_in_one_row_do_not_mix(kind: str) -> None:
    sources = [[7], [8, 9, 10], [11] * 17]
    params = SamplingParams(max_tokens=8)
    one_by_one = Engine(target(kind), max_batch_size=1).generate(sources, params)
    alone = [Engine(target(kind)).generate(source, params)[0] for source in sources]
    assert [one.token_ids for one in one_by_one] == [one.token_ids for one in alone]


@pytest.mark.parametrize("gamma", [0, 4])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_a_text_ends_where_the_context_does(kind: str, gamma: int) -> None:
    prompts = [[5] * 120, [6] * 127, [7] * 100]  # the context is 128
    engine = Engine(target(kind), draft=ModelDrafter(target(kind)), gamma=gamma)
    results = engine.generate(prompts, SamplingParams(ignore_eos=True))
    assert [len(result.token_ids) for result in results] == [8, 1, 28]
    assert {str(result.finish_reason) for result in results} == {"length"}


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"128 tokens.*context of 128: shorten it"):
        Engine(target("llama")).generate([5] * 128)


def test_a_source_may_fill_the_encoder_but_not_more() -> None:
    engine = Engine(target("bart"))
    assert len(engine.generate([5] * 128, SamplingParams(max_tokens=2))[0].token_ids) > 0
    with pytest.raises(InvalidRequestError, match=r"129 tokens.*context of 128"):
        engine.generate([5] * 129)


def test_a_draft_with_a_shorter_context_stops_drafting_in_time() -> None:
    short = tiny.model("gpt2", 3, n_positions=32)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    engine = Engine(target("gpt2"), draft=ModelDrafter(short), gamma=4)
    result = engine.generate([5] * 20, params)[0]
    assert result.token_ids == Engine(target("gpt2")).generate([5] * 20, params)[0].token_ids
    assert 0 < result.statistics.num_drafted <= 4 * 12
