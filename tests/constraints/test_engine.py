"""Rung 5 for structured outputs: the same text for every drafter, gamma and batch, in the form."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch

from draftsmith.constraints.guidance import GuidanceMatcher
from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.drafters import (
    Draft,
    DraftContext,
    Drafter,
    ModelDrafter,
    PromptLookupDrafter,
    RandomDrafter,
)
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.result import FinishReason, GenerationResult
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.load import wrap_model
from tests import tiny
from tests.constraints.kit import FORMS, SCHEMA, Text, model, near, tokenizer
from tests.engine.kit import texts
from tests.grids import thinned
from tests.wrapped import Wrapped

PROMPTS = ["the quick brown fox", "def add(a, b):", "the lazy dog jumps over the lazy dog", "x"]
MODES = {
    "greedy": SamplingParams(max_tokens=40),
    "seeded": SamplingParams(max_tokens=40, temperature=1.3, seed=5),
    "seeded with penalties": SamplingParams(
        max_tokens=40,
        temperature=0.9,
        top_p=0.95,
        seed=6,
        frequency_penalty=0.4,
        presence_penalty=0.2,
        repetition_penalty=1.2,
        logit_bias={5: 1.5, 40: -2.0},
    ),
}
DRAFTERS: dict[str, Callable[[], Drafter | None]] = {
    "none": lambda: None,
    "model": lambda: ModelDrafter(near()),
    "itself": lambda: ModelDrafter(model()),
    "prompt lookup": lambda: PromptLookupDrafter(min_ngram=1),
    "random": lambda: RandomDrafter(model().traits.vocab_size),
    "hierarchical": lambda: SpeculativeDrafter(near(), PromptLookupDrafter(min_ngram=1), 2),
}


def engine(drafter: str, gamma: int | None = 3, target: LanguageModel | None = None) -> Engine:
    draft = DRAFTERS[drafter]()
    gamma = None if draft is None else gamma
    return Engine(target or model(), tokenizer(), draft, gamma=gamma, max_batch_size=3)


@cache
def plain(form: str, mode: str) -> tuple[GenerationResult, ...]:
    """Each prompt's text with speculation off, in a batch of one."""
    off = Engine(model(), tokenizer(), gamma=0)
    params = replace(MODES[mode], structured_outputs=FORMS[form])
    return tuple(off.generate(prompt, params)[0] for prompt in PROMPTS)


def ids(results: tuple[GenerationResult, ...] | list[GenerationResult]) -> list[Text]:
    return [result.token_ids for result in results]


PAIRS = [("compact", mode) for mode in MODES] + [
    (form, list(MODES)[number % len(MODES)]) for number, form in enumerate(FORMS)
]
"""One form in every mode, each mode with several forms."""


@pytest.mark.parametrize(("drafter", "pair"), thinned(DRAFTERS, dict.fromkeys(PAIRS), every=2))
def test_the_text_is_that_of_plain_decoding_under_the_same_masks(
    drafter: str, pair: tuple[str, str]
) -> None:
    form, mode = pair
    params = replace(MODES[mode], structured_outputs=FORMS[form])
    gammas = (1, 4) if drafter in ("model", "random") else (3,)
    for gamma in gammas:
        results = engine(drafter, gamma).generate(PROMPTS, params)
        assert ids(results) == ids(plain(form, mode)), gamma


@pytest.mark.parametrize("mode", MODES)
def test_the_drafts_of_the_target_itself_are_always_kept(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked as the target is, it proposes nothing that must be cut off or rejected."""
    monkeypatch.setattr(GuidanceMatcher, "spelled", _nothing)  # which may be wrong
    for form in (*FORMS.values(), StructuredOutputs(regex="[b-df-hj]{30,}")):
        params = replace(MODES[mode], structured_outputs=form)
        for result in engine("itself", 4).generate(PROMPTS, params):
            counts = result.statistics
            assert counts.num_accepted == counts.num_tested > 0
            assert counts.num_rounds <= -(-len(result.token_ids) // 5)


def _nothing(matcher: GuidanceMatcher) -> list[int]:
    return []


@pytest.mark.parametrize("mode", MODES)
def test_a_text_that_ends_has_its_form(mode: str) -> None:
    checks: dict[str, Callable[[str], bool]] = {
        "schema": _fits_schema,
        "compact": lambda text: _fits_schema(text) and '":' in text and ": " not in text,
        "object": lambda text: isinstance(json.loads(text), dict),
        "regex": lambda text: bool(re.fullmatch(FORMS["regex"].regex or "", text)),
        "choice": lambda text: text in (FORMS["choice"].choice or ()),
        "lark": lambda text: all(
            0 <= one < 1000 for one in json.loads(re.sub(r"\b0+\B", "", text))
        ),
    }
    ended = 0
    for form, fits in checks.items():
        for result in plain(form, mode):
            if result.finish_reason is FinishReason.STOP:
                ended += 1
                assert result.token_ids[-1] == tiny.EOS
                assert fits(result.text), (form, result.text)
            else:
                assert result.finish_reason is FinishReason.LENGTH, result.error
    assert ended >= 10


def _fits_schema(text: str) -> bool:
    value = json.loads(text)
    return list(value) == ["name", "old"] and isinstance(value["old"], bool)


def test_without_a_drafter_forced_tokens_take_few_passes_and_gamma_0_drafts_nothing() -> None:
    params = SamplingParams(max_tokens=60, structured_outputs=FORMS["compact"])
    quick = Engine(model(), tokenizer()).generate(PROMPTS[0], params)[0]
    slow = Engine(model(), tokenizer(), gamma=0).generate(PROMPTS[0], params)[0]
    assert quick.token_ids == slow.token_ids
    assert slow.statistics.num_drafted == 0
    assert slow.statistics.num_rounds == len(slow.token_ids)
    assert quick.statistics.num_accepted > 10
    assert quick.statistics.num_rounds < len(slow.token_ids) - 10


def test_a_form_of_one_text_takes_one_pass() -> None:
    form = StructuredOutputs(choice=["the quick brown fox"])
    result = Engine(model(), tokenizer()).generate("x", structured_outputs=form)[0]
    assert (result.text, result.finish_reason) == ("the quick brown fox", FinishReason.STOP)
    assert result.statistics.num_rounds == 1


@pytest.mark.parametrize(
    ("verifier", "drafter"),
    thinned(["rejection", "block"], ["model", "hierarchical", "random", "none"], every=2),
)
def test_the_other_verifiers_keep_to_the_form_and_are_reproducible(
    verifier: str, drafter: str
) -> None:
    params = SamplingParams(max_tokens=60, temperature=1.2, seed=4, verifier=verifier)
    params = replace(params, structured_outputs=FORMS["compact"], n=3)
    one = engine(drafter).generate(PROMPTS, params)
    assert texts(one) == texts(engine(drafter).generate(PROMPTS, params))
    for completion in (sample for result in one for sample in result.completions):
        is_whole = completion.finish_reason is FinishReason.STOP
        assert not is_whole or _fits_schema(completion.text)
        assert completion.error is None


def test_requests_with_and_without_forms_share_a_batch() -> None:
    params = [
        replace(MODES["seeded"], structured_outputs=FORMS["compact"]),
        MODES["seeded"],
        replace(MODES["greedy"], structured_outputs=FORMS["regex"]),
        MODES["greedy"],
    ]
    off = Engine(model(), tokenizer(), gamma=0)
    alone = [off.generate(*pair)[0].token_ids for pair in zip(PROMPTS, params, strict=True)]
    for drafter in DRAFTERS:
        assert ids(engine(drafter).generate(PROMPTS, params)) == alone


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2"])
def test_other_families_too(kind: str) -> None:
    size = len(tokenizer().token_strings())
    target = tiny.model(kind, vocab_size=size)
    params = replace(MODES["seeded"], structured_outputs=FORMS["compact"], max_tokens=24)
    off = Engine(target, tokenizer(), gamma=0).generate(PROMPTS, params)
    for draft in (None, ModelDrafter(target), RandomDrafter(size)):
        results = Engine(target, tokenizer(), draft).generate(PROMPTS, params)
        assert ids(results) == ids(off)
        assert all(result.text.startswith("{") for result in results)


class Counted(Wrapped):
    """A draft model that counts its passes."""

    num_passes = 0

    def forward(self, cache: Cache, batch: Rows) -> torch.Tensor:
        self.num_passes += 1
        return super().forward(cache, batch)


@pytest.mark.parametrize("verifier", ["rejection", "block", "coupled"])
def test_a_draft_model_runs_for_no_token_that_is_forced(verifier: str) -> None:
    form = StructuredOutputs(regex="([ab]the lazy dog){6}")
    params = SamplingParams(
        structured_outputs=form, temperature=1.0, seed=3, verifier=verifier, max_tokens=100
    )
    counted = Counted(model())
    drafting = Engine(model(), tokenizer(), ModelDrafter(counted), gamma=12)
    result = drafting.generate("x", params)[0]
    assert result.finish_reason is FinishReason.STOP
    assert len(result.token_ids) == 25
    assert result.statistics.num_drafted >= 20
    # One for each letter that is free, and not many for what a rejection makes it read again.
    assert counted.num_passes <= 8


class Stubborn(Drafter):
    """Drafts one text, whatever is allowed."""

    draws_from_law = False

    def __init__(self, tokens: list[int], probs: bool = False) -> None:
        self.tokens, self.has_probs = tokens, probs

    def propose(self, context: DraftContext) -> Draft:
        rows = [self.tokens[: view.gamma] for view in context.sequences]
        draft = Draft.certain(rows, context.device)
        if not self.has_probs:
            return draft
        vocab = model().traits.vocab_size
        return Draft(draft.tokens, draft.num_drafted, draft.dense_probs(vocab))


def test_a_draft_is_cut_where_the_grammar_refuses_it() -> None:
    fox = tokenizer().encode_plain("the fox")
    params = SamplingParams(structured_outputs=StructuredOutputs(regex="the (dog|fly|sky)"))
    off = Engine(model(), tokenizer(), gamma=0).generate("x", params)[0]
    draft = Stubborn([*fox, *fox])
    result = Engine(model(), tokenizer(), draft, gamma=8).generate("x", params)[0]
    assert result.token_ids == off.token_ids
    trace = result.completions[0].trace
    assert all(token.rejected not in fox for token in trace), "what is refused is not even checked"


@pytest.mark.parametrize("verifier", ["rejection", "block", "coupled"])
def test_a_law_of_the_drafters_own_is_checked_as_it_is(verifier: str) -> None:
    fox = tokenizer().encode_plain("the fox")
    form = StructuredOutputs(regex="the (dog|fly|sky)")
    params = SamplingParams(
        structured_outputs=form, temperature=1.0, seed=2, verifier=verifier, n=8
    )
    drafting = Engine(model(), tokenizer(), Stubborn([*fox, *fox], probs=True), gamma=6)
    for completion in drafting.generate("x", params)[0].completions:
        assert re.fullmatch("the (dog|fly|sky)", completion.text), completion


@pytest.mark.parametrize("options", [{"stop": ["quick"]}, {"min_tokens": 4}, {"max_tokens": 3}])
def test_ends_of_other_kinds_end_the_text_where_plain_decoding_ends(options: dict) -> None:  # type: ignore[type-arg]
    params = SamplingParams(structured_outputs=FORMS["regex"], seed=1, temperature=1.0, **options)
    off = Engine(model(), tokenizer(), gamma=0).generate(PROMPTS, params)
    for drafter in DRAFTERS:
        results = engine(drafter).generate(PROMPTS, params)
        for one, other in zip(results, off, strict=True):
            assert (one.text, one.token_ids) == (other.text, other.token_ids)
            assert one.finish_reason is other.finish_reason


def test_a_minimum_beyond_the_form_ends_with_an_error_that_says_so() -> None:
    params = SamplingParams(structured_outputs=FORMS["choice"], min_tokens=30)
    for drafter in DRAFTERS:
        result = engine(drafter).generate([PROMPTS[0], PROMPTS[1]], params)[0]
        assert result.finish_reason is FinishReason.ERROR
        assert result.error is not None
        assert "structured_outputs.choice" in result.error
        assert "min_tokens" in result.error
        assert result.text in (FORMS["choice"].choice or ())


def test_samples_walk_apart() -> None:
    params = replace(MODES["seeded"], n=4, structured_outputs=FORMS["compact"])
    off = Engine(model(), tokenizer(), gamma=0).generate(PROMPTS[:2], params)
    assert all(len({one.token_ids for one in result.completions}) > 1 for result in off)
    for drafter in ("none", "model"):
        assert texts(engine(drafter).generate(PROMPTS[:2], params)) == texts(off)


def test_an_auto_gamma_gives_the_same_text() -> None:
    params = [replace(MODES["seeded"], structured_outputs=FORMS["compact"]), MODES["greedy"]] * 2
    off = Engine(model(), tokenizer(), gamma=0).generate(PROMPTS, params)
    for draft in (ModelDrafter(near()), PromptLookupDrafter(min_ngram=1)):
        auto = Engine(model(), tokenizer(), draft, gamma="auto")
        for _ in range(3):
            assert ids(auto.generate(PROMPTS, params)) == ids(off)
        assert auto.controller.ledger is not None
        assert auto.controller.ledger.num_rounds > 0


def test_a_stream_shows_the_same_text() -> None:
    params = replace(MODES["seeded"], structured_outputs=StructuredOutputs(json=SCHEMA))
    for drafter in ("none", "model"):
        shown = "".join(event.text for event in engine(drafter).stream(PROMPTS[0], params))
        assert shown == plain("schema", "seeded")[0].text


def test_logprobs_are_those_of_the_model_before_the_mask() -> None:
    params = SamplingParams(structured_outputs=FORMS["choice"], logprobs=2)
    trace = engine("none").generate(PROMPTS[0], params)[0].completions[0].trace
    logits = torch.tensor([token.logprob for token in trace])
    assert bool((logits < 0).any())
    assert [token.token_id for token in trace] != [
        token.top_logprobs[0].token_id for token in trace
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_lenient_check_keeps_to_the_form(temperature: float) -> None:
    form = StructuredOutputs(regex="the (dog|fly|sky){1,3}")
    params = SamplingParams(
        structured_outputs=form, lossy_lenience=0.05, temperature=temperature, seed=2, n=4
    )
    fox = tokenizer().encode_plain("the fox")
    for draft in (RandomDrafter(model().traits.vocab_size), Stubborn([*fox, *fox])):
        result = Engine(model(), tokenizer(), draft, gamma=5).generate("x", params)[0]
        for completion in result.completions:
            assert re.fullmatch("the (dog|fly|sky){1,3}", completion.text), completion


def test_a_special_stop_token_may_end_the_form_too() -> None:
    [user] = tokenizer().encode_plain("<user>")
    params = SamplingParams(
        structured_outputs=FORMS["choice"], stop_token_ids=(user,), logit_bias={user: 100.0}
    )
    for drafter in ("none", "model"):
        result = engine(drafter).generate("x", params)[0]
        assert result.token_ids[-1] == user
        assert result.text in (FORMS["choice"].choice or ())


def test_a_first_token_that_the_model_demands_is_refused_by_name() -> None:
    raw = tiny.raw_model("bart", vocab_size=len(tokenizer().token_strings()))
    raw.generation_config.forced_bos_token_id = 5
    off = Engine(wrap_model(raw, name="tiny-bart"), tokenizer())
    with pytest.raises(InvalidRequestError, match="forced_bos_token_id cannot be honoured"):
        off.generate("x", structured_outputs=FORMS["choice"])
    lifted = off.generate("x", structured_outputs=FORMS["choice"], forced_bos_token_id=-1)[0]
    assert lifted.text in (FORMS["choice"].choice or ())
