"""Beam search: as `transformers` has it; and with a draft, the same texts in fewer passes."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import draftsmith
from draftsmith.core.enumeration import RandomWorld
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.engine.beams import search as beams
from draftsmith.engine.beams.search import BeamResult, beam_search
from draftsmith.engine.engine import Engine
from draftsmith.errors import (
    DraftsmithError,
    InvalidRequestError,
    NotRollbackableError,
    NumericsError,
)
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.load import wrap_model
from tests import tiny
from tests.engine.kit import PROMPTS, Poisoned, target, text_tokenizer, twin

END = 0


class WorldModel(LanguageModel):
    """A random world as a model: its logits are the log-laws after each history."""

    def __init__(self, world: RandomWorld, *, is_draft: bool = False, context: int = 99) -> None:
        self.traits = ModelTraits("world", world.vocab, (END,), context)
        self.device = torch.device("cpu")
        self.uses_torch_threads = False
        self.widths: list[int] = []
        self._law = world.draft if is_draft else world.target
        self._texts: dict[int, list[int]] = {}

    def open_cache(self) -> Cache:
        return CountedCache()

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        if tokens:
            self.forward(cache, Rows([row], [tokens]))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        raise AssertionError("decoder-only")

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        assert isinstance(cache, CountedCache)
        self.widths.append(sum(map(len, batch.tokens)))
        logits = torch.full((len(batch.rows), batch.width, self.traits.vocab_size), math.nan)
        for place, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            text = self._texts.setdefault(row, [])
            del text[cache.length(row) :]
            for column, token in enumerate(tokens):
                text.append(token)
                logits[place, column] = self._law(tuple(text)).log()
            cache.append(row, len(tokens))
        return logits


def engine(seed: int, mismatch: float, *, has_draft: bool) -> Engine:
    world = RandomWorld(seed, vocab=4 + seed % 3, mismatch=mismatch)
    draft = ModelDrafter(WorldModel(world, is_draft=True)) if has_draft else None
    return Engine(WorldModel(world), draft=draft)


def found(result: BeamResult) -> list[tuple[tuple[int, ...], float]]:
    return [(one.token_ids, one.score) for one in result.texts]


@pytest.mark.parametrize("num_beams", [1, 2, 3])
def test_a_draft_changes_neither_texts_nor_scores(num_beams: int) -> None:
    num_saved = 0
    for seed in range(16):
        mismatch = (0.0, 0.2, 0.6, 1.0)[seed % 4]
        options: dict[str, Any] = {"num_beams": num_beams, "max_tokens": 7}
        plain = beam_search(engine(seed, mismatch, has_draft=False), [1, 2], **options)
        drafted = beam_search(
            engine(seed, mismatch, has_draft=True),
            [1, 2],
            draft_beams=num_beams + seed % 3,
            gamma=1 + seed % 4,
            **options,
        )
        assert found(drafted) == found(plain), f"world {seed}"
        assert drafted.num_steps == plain.num_steps == plain.num_target_passes
        assert drafted.num_target_passes <= plain.num_target_passes
        num_saved += plain.num_target_passes - drafted.num_target_passes
    assert num_saved > 12


def test_a_perfect_draft_takes_gamma_plus_one_steps_a_pass() -> None:
    for seed in range(12):
        search = engine(seed, 0.0, has_draft=True)
        result = beam_search(search, [1], num_beams=2, draft_beams=2, gamma=3, max_tokens=8)
        assert result.num_target_passes == math.ceil(result.num_steps / 4)


def test_a_pass_runs_no_more_rows_than_the_paper_says() -> None:
    """w + u gamma, and what must be run again because rows cannot be copied."""
    world = RandomWorld(5, vocab=6, mismatch=0.0)
    model = WorldModel(world)
    search = Engine(model, draft=ModelDrafter(WorldModel(world, is_draft=True)))
    beam_search(search, [1], num_beams=1, draft_beams=1, gamma=3, max_tokens=9)
    assert max(model.widths) == 1 + 1 * 3


def test_all_beams_are_all_texts() -> None:
    """With more beams than there are texts, the search is exhaustive."""
    for seed in range(10):
        world = RandomWorld(seed, vocab=3)
        result = beam_search(Engine(WorldModel(world)), [1], num_beams=40, max_tokens=3)
        texts = [
            (*middle, last)
            for length in range(3)
            for middle in itertools.product((1, 2), repeat=length)
            for last in (range(3) if length == 2 else (END,))
        ]
        scores = {text: _mean(world, text) for text in texts}
        possible = {text: score for text, score in scores.items() if score > -math.inf}
        assert dict(found(result)) == pytest.approx(possible, abs=1e-6)
        ranked = [score for _, score in found(result)]
        assert ranked == sorted(ranked, reverse=True)


def _mean(world: RandomWorld, text: tuple[int, ...]) -> float:
    laws = [float(world.target((1, *text[:i]))[token]) for i, token in enumerate(text)]
    return sum(math.log(p) if p else -math.inf for p in laws) / len(text)


# --- against transformers -------------------------------------------------------------------


def theirs(
    model: Any, prompt: list[int], num_beams: int, eos: int
) -> list[tuple[list[int], float]]:
    kind = model.config.is_encoder_decoder
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=eos,
            return_dict_in_generate=True,
            output_scores=True,
        )
    start = 1 if kind else len(prompt)
    texts = []
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        text = row[start:]
        if eos in text:
            text = text[: text.index(eos) + 1]
        texts.append((text, score))
    return texts


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("num_beams", [2, 4])
def test_texts_and_scores_are_those_of_transformers(kind: str, num_beams: int) -> None:
    lengths: set[int] = set()
    for seed in (3, 4):
        endless = beam_search(
            Engine(wrap_model(tiny.raw_model(kind, seed), name="tiny")),
            PROMPTS[0],
            num_beams=num_beams,
            max_tokens=10,
            ignore_eos=True,
        )
        # A token that the texts do hold, so that some of them end there.
        eos = endless.texts[-1].token_ids[3]
        raw = tiny.raw_model(kind, seed, eos_token_id=eos)
        search = Engine(wrap_model(raw, name="tiny"))
        for prompt in PROMPTS[:2]:
            result = beam_search(search, prompt, num_beams=num_beams, max_tokens=10)
            expected = theirs(raw, prompt, num_beams, eos)
            assert [list(text) for text, _ in found(result)] == [text for text, _ in expected]
            scores = [score for _, score in expected]
            assert [one.score for one in result.texts] == pytest.approx(scores, abs=1e-4)
            lengths |= {len(one.token_ids) for one in result.texts}
    assert len(lengths) > 1, "some texts must end early, and not all"


# --- models ---------------------------------------------------------------------------------


BEAM_PROMPTS = PROMPTS[:3]
"""Repetitive, of one token, and long: a search has no batch."""


@cache
def plain(kind: str, num_beams: int) -> list[BeamResult]:
    options: dict[str, Any] = {"num_beams": num_beams, "max_tokens": 9}
    return [beam_search(Engine(target(kind)), prompt, **options) for prompt in BEAM_PROMPTS]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bart"])
def test_a_tiny_draft_changes_nothing(kind: str, num_beams: int) -> None:
    search = Engine(target(kind), draft=ModelDrafter(twin(kind)), gamma=3)
    passes = 0
    for prompt, expected in zip(BEAM_PROMPTS, plain(kind, num_beams), strict=True):
        result = beam_search(search, prompt, num_beams=num_beams, max_tokens=9)
        assert [one.token_ids for one in result.texts] == [one.token_ids for one in expected.texts]
        scores = [one.score for one in expected.texts]
        assert [one.score for one in result.texts] == pytest.approx(scores, abs=1e-5)
        passes += expected.num_target_passes - result.num_target_passes
    assert passes > 0


def test_a_draft_with_a_shorter_context_or_vocabulary_drafts_what_it_can() -> None:
    world = RandomWorld(2, vocab=6, mismatch=0.1)
    expected = found(beam_search(Engine(WorldModel(world)), [1, 2, 3], max_tokens=8))
    short = WorldModel(world, is_draft=True, context=6)
    small = WorldModel(RandomWorld(2, vocab=4))
    same = text_tokenizer()
    for draft in (short, small):
        search = Engine(WorldModel(world), same, ModelDrafter(draft, same))
        assert found(beam_search(search, [1, 2, 3], max_tokens=8)) == expected
    # The longest text that the draft read had its context's length.
    assert max(len(text) for text in short._texts.values()) <= 6


def test_a_draft_that_is_no_law_harms_nothing() -> None:
    broken = Poisoned(twin("llama"), PROMPTS[0][-1], math.nan, None)
    search = Engine(target("llama"), draft=ModelDrafter(broken), gamma=3)
    result = beam_search(search, PROMPTS[0], num_beams=3, max_tokens=9)
    assert [one.token_ids for one in result.texts] == [
        one.token_ids for one in plain("llama", 3)[0].texts
    ]


def test_a_target_that_is_no_law_is_named() -> None:
    broken = Poisoned(target("llama"), PROMPTS[0][-1], math.nan, None)
    with pytest.raises(NumericsError, match="NaN"):
        beam_search(Engine(broken), PROMPTS[0], max_tokens=4)


def test_a_law_of_another_text_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: laws are read one row early."""
    inner = beams._stacked

    def shifted(laws: dict[Any, Tensor], live: Any) -> Tensor:
        moved = [beam._replace(tokens=beam.tokens[:-1]) for beam in live]
        is_there = all(beam.tokens in laws for beam in moved)
        return inner(laws, moved if is_there and live[0].tokens else live)

    monkeypatch.setattr(beams, "_stacked", shifted)
    with pytest.raises(AssertionError):
        test_a_draft_changes_neither_texts_nor_scores(2)


@pytest.mark.real_model
def test_a_draft_changes_nothing_on_a_real_model() -> None:
    search = draftsmith.load_engine("smollm2-135m-instruct", "smollm2-135m-instruct", gamma=4)
    alone = Engine(search.target, search.tokenizer)
    for prompt in ("The capital of France is", "def add(a, b):\n"):
        options: dict[str, Any] = {"num_beams": 3, "max_tokens": 12}
        expected = beam_search(alone, prompt, **options)
        result = beam_search(search, prompt, **options)
        assert found(result) == found(expected)
        assert result.num_target_passes < expected.num_target_passes
        assert str(result)


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be 1 or more, got 0"),
        ({"num_beams": 4, "draft_beams": 3}, "draft_beams must be num_beams = 4 or more, got 3"),
        ({"gamma": 33}, "gamma must be between 0 and 32"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more"),
    ],
)
def test_a_number_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    search = Engine(target("llama"), draft=ModelDrafter(twin("llama")))
    with pytest.raises(InvalidRequestError, match=message):
        beam_search(search, PROMPTS[0], **options)


def test_a_draft_that_is_no_model_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="beam search drafts with a model"):
        beam_search(Engine(target("llama"), draft=PromptLookupDrafter()), PROMPTS[0])


def test_a_model_that_cannot_roll_back_is_refused() -> None:
    with pytest.raises(NotRollbackableError, match="cannot search with beams"):
        beam_search(Engine(tiny.model("mamba")), PROMPTS[0])


def test_the_context_ends_a_search() -> None:
    model = WorldModel(RandomWorld(3, vocab=5), context=6)
    result = beam_search(Engine(model), [1, 2], ignore_eos=True)
    assert {len(one.token_ids) for one in result.texts} == {4}
    with pytest.raises(DraftsmithError):
        beam_search(Engine(model), [1] * 6)
