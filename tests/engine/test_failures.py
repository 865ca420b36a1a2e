"""What goes wrong stays where it is: bad requests, poison in logits, drafters that misbehave."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from draftsmith.core.gamma import Gamma
from draftsmith.core.params import SamplingParams
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
from draftsmith.engine.requests.request import Prompt
from draftsmith.engine.requests.result import FinishReason
from draftsmith.errors import DraftError, InvalidRequestError, VocabularyMismatchError
from draftsmith.models.contract import Cache, Rows
from draftsmith.models.hf.load import wrap_tokenizer
from tests import tiny
from tests.drafters.recording import Recording, view
from tests.engine.kit import (
    PROMPTS,
    Poisoned,
    target,
    text_model,
    text_tokenizer,
    texts,
    twin,
)
from tests.wrapped import Wrapped

SEEDED = SamplingParams(max_tokens=16, temperature=0.9, seed=6, ignore_eos=True)
NAN, INF = float("nan"), float("inf")


def llama(draft: Drafter | None = None, gamma: int = 3) -> Engine:
    return Engine(target("llama"), draft=draft or ModelDrafter(twin("llama")), gamma=gamma)


# --- requests -------------------------------------------------------------------------------

BAD_PROMPTS: list[tuple[Prompt, str]] = [
    ([], "the prompt is empty"),
    ([5] * 128, "a context of 128: shorten it"),
    ([5] * 300, "the prompt has 300 tokens"),
    ([5, 96], "the prompt has id 96, but tiny-llama has ids 0 … 95"),
    ([-1], "the prompt has id -1"),
    ("words", "a text prompt needs a tokenizer"),
]


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_bad_request_in_a_batch_leaves_the_others_alone(gamma: int) -> None:
    bad = [prompt for prompt, _ in BAD_PROMPTS]
    results = llama(gamma=gamma).generate([*bad[:3], *PROMPTS, *bad[3:]], SEEDED)
    assert len(results) == len(bad) + len(PROMPTS)
    refused, served = [*results[:3], *results[-3:]], results[3:-3]
    assert texts(served) == texts(llama(gamma=0).generate(PROMPTS, SEEDED))
    for result, (_, why) in zip(refused, BAD_PROMPTS, strict=True):
        assert result.finish_reason is FinishReason.ERROR
        assert result.error is not None
        assert why in result.error
        assert "\n" not in result.error
        assert (result.token_ids, str(result)) == ((), "")


def test_a_batch_of_bad_requests_alone_ends() -> None:
    results = llama().generate([prompt for prompt, _ in BAD_PROMPTS], SEEDED)
    assert {result.finish_reason for result in results} == {FinishReason.ERROR}


@pytest.mark.parametrize(("prompt", "why"), BAD_PROMPTS)
def test_a_bad_request_alone_raises(prompt: Prompt, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why) as caught:
        llama().generate([prompt], SEEDED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "why"),
    [
        (SamplingParams(stop=("x",)), "stop strings in letters need a tokenizer"),
        (SamplingParams(banned_token_ids=(96,)), "banned_token_ids has id 96"),
        (SamplingParams(stop_token_ids=(400,)), "stop_token_ids has id 400"),
        (SamplingParams(allowed_token_ids=(3, 99)), "allowed_token_ids has id 99"),
        (SamplingParams(logit_bias={200: 1.0}), "logit_bias has id 200"),
        (SamplingParams(logprobs=97), "logprobs must be at most 96"),
    ],
)
def test_parameters_that_this_model_cannot_honour_are_refused(
    params: SamplingParams, why: str
) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        llama().generate(PROMPTS[0], params)
    results = llama().generate(PROMPTS[:2], [params, SEEDED])
    assert [result.finish_reason for result in results] == ["error", "length"]


def test_as_many_params_as_prompts_or_one() -> None:
    with pytest.raises(InvalidRequestError, match="params must be one, or 5, got 2"):
        llama().generate(PROMPTS, [SEEDED, SEEDED])


# --- engines --------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [-1, 33])
def test_gamma_out_of_range_is_refused(gamma: int) -> None:
    message = f"gamma must be between 0 and 32, or auto, got {gamma}"
    with pytest.raises(InvalidRequestError, match=message):
        llama(gamma=gamma)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="max_batch_size must be 1 or more, got 0"):
        Engine(target("llama"), max_batch_size=0)


@pytest.mark.parametrize(("one", "other"), [("t5", "llama"), ("llama", "bart")])
def test_a_decoder_and_an_encoder_decoder_are_no_pair(one: str, other: str) -> None:
    over = SpeculativeDrafter(target(one), ModelDrafter(target(other)))
    for engine_of, draft in ((one, ModelDrafter(target(other))), (one, over)):
        with pytest.raises(InvalidRequestError) as caught:
            Engine(target(engine_of), draft=draft, gamma=2)
        message = str(caught.value)
        assert f"tiny-{one}" in message
        assert f"tiny-{other}" in message
        assert "\n" not in message


def test_a_draft_with_another_tokenizer_is_refused_by_the_first_token_that_differs() -> None:
    other = wrap_tokenizer(tiny.raw_tokenizer(300))
    changed = dict(other.token_strings())
    changed[70], changed[71] = changed[71], changed[70]
    other.token_strings = lambda: changed  # type: ignore[method-assign] # another vocabulary
    with pytest.raises(VocabularyMismatchError, match="token 70 is"):
        Engine(
            text_model(),
            text_tokenizer(),
            ModelDrafter(text_model()),
            gamma=2,
            draft_tokenizer=other,
        )


# --- poison in the target's logits ----------------------------------------------------------


def poison_token(params: SamplingParams) -> tuple[int, list[list[tuple[int, ...]]]]:
    """A token that the first text alone reaches, not at its end; and the plain texts."""
    plain = texts(Engine(target("llama")).generate(PROMPTS, params))
    first, others = plain[0][0], {t for text in plain[1:] for t in text[0]}
    seen = others | {t for prompt in PROMPTS for t in prompt} | {first[0], 0}
    return next(token for token in first[2:-3] if token not in seen), plain


@pytest.mark.parametrize("gamma", [0, 1, 5])
@pytest.mark.parametrize(
    ("value", "column", "why"),
    [(NAN, None, "NaN"), (NAN, 17, "NaN"), (INF, 17, "infinite"), (INF, None, "infinite")],
)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_poison_ends_its_own_sequence_and_no_other(
    temperature: float, value: float, column: int | None, why: str, gamma: int
) -> None:
    params = replace(SEEDED, temperature=temperature)
    token, plain = poison_token(params)
    sick = Poisoned(target("llama"), token, value, column)
    for draft in (ModelDrafter(target("llama")), ModelDrafter(twin("llama"))):
        results = Engine(sick, draft=draft, gamma=gamma).generate(PROMPTS, params)
        assert texts(results)[1:] == plain[1:]
        end = plain[0][0].index(token) + 1
        assert results[0].token_ids == plain[0][0][:end], "all before the poison is kept"
        assert results[0].finish_reason is FinishReason.ERROR
        assert results[0].error is not None
        assert why in results[0].error
        assert results[0].statistics.num_committed == end


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_poison_ends_its_own_sequence_with_any_verifier(verifier: str) -> None:
    params = replace(SEEDED, verifier=verifier, max_tokens=30)
    token = 50
    sick = Poisoned(target("llama"), token, NAN, None)
    engine = Engine(sick, draft=ModelDrafter(twin("llama")), gamma=4)
    results = engine.generate(PROMPTS * 3, [replace(params, seed=i) for i in range(15)])
    ended = [result for result in results if result.error]
    assert 0 < len(ended) < len(results)
    for result in results:
        assert token not in result.token_ids[:-1]
        assert (token in result.token_ids) == (result.error is not None) or (
            len(result.token_ids) == 30
        )


@dataclass
class Constant(Drafter):
    """Drafts one token for ever."""

    token: int
    name: str = "constant"

    def propose(self, context: DraftContext) -> Draft:
        rows = [[self.token] * view.gamma for view in context.sequences]
        return Draft.certain(rows, context.device)


@pytest.mark.parametrize("verifier", ["rejection", "block", "coupled"])
def test_poison_behind_a_rejected_draft_was_never_reached(verifier: str) -> None:
    # The rows after the draft are NaN, but plain decoding would not have come there.
    params = replace(SEEDED, banned_token_ids=(50,), verifier=verifier)
    sick = Poisoned(target("llama"), 50, NAN, None)
    results = Engine(sick, draft=Constant(50), gamma=4).generate(PROMPTS, params)
    assert {result.error for result in results} == {None}
    assert all(result.statistics.num_accepted == 0 for result in results)
    if verifier == "coupled":
        assert texts(results) == texts(Engine(target("llama")).generate(PROMPTS, params))


def test_a_poisoned_prompt_ends_at_once() -> None:
    sick = Poisoned(target("llama"), PROMPTS[1][-1], NAN, None)
    results = Engine(sick).generate(PROMPTS, replace(SEEDED, max_tokens=1))
    assert [result.error is not None for result in results] == [False, True, False, False, False]
    assert results[1].token_ids == ()


def test_bans_that_leave_nothing_end_the_sequence_with_the_remedy() -> None:
    ending = target("llama").traits.eos_token_ids[0]
    params = SamplingParams(allowed_token_ids=(ending,), min_tokens=2, max_tokens=5)
    results = llama().generate(PROMPTS[:2], [params, SEEDED])
    assert results[0].error is not None
    assert "no token is allowed here" in results[0].error
    assert results[1].error is None


# --- poison in the draft --------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [4, "auto"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("verifier", ["coupled", "block"])
def test_poison_in_the_draft_costs_nothing_but_speed(
    value: float, verifier: str, gamma: Gamma
) -> None:
    sick = Poisoned(target("llama"), 42, value, None)  # a frequent token of this model
    params = replace(SEEDED, verifier=verifier, temperature=0.0 if verifier == "block" else 0.9)
    plain = texts(Engine(target("llama")).generate(PROMPTS, params))
    drafts = [
        ModelDrafter(Poisoned(target("llama"), 0, value, 3)),
        ModelDrafter(sick),
        SpeculativeDrafter(sick, PromptLookupDrafter(1), inner_gamma=2),
        SpeculativeDrafter(target("llama"), ModelDrafter(sick), inner_gamma=2),
    ]
    for draft in drafts:
        results = Engine(target("llama"), draft=draft, gamma=gamma).generate(PROMPTS, params)
        assert {result.error for result in results} == {None}
        assert texts(results) == plain


def test_a_draft_that_is_all_poison_still_drafts_legal_tokens() -> None:
    sick = ModelDrafter(AllPoison(target("llama")))
    params = replace(SEEDED, verifier="block", banned_token_ids=tuple(range(40)))
    results = Engine(target("llama"), draft=sick, gamma=3).generate(PROMPTS, params)
    assert all(min(result.token_ids) >= 40 for result in results)
    assert {result.error for result in results} == {None}
    rejected = [
        t.rejected for r in results for t in r.completions[0].trace if t.rejected is not None
    ]
    assert rejected
    assert min(rejected) >= 40


class AllPoison(Wrapped):
    """Every logit is NaN."""

    def forward(self, cache: Cache, batch: Rows) -> torch.Tensor:
        return torch.full_like(self.inner.forward(cache, batch), NAN)


# --- vocabularies of different sizes --------------------------------------------------------


@pytest.mark.parametrize("draft_size", [70, 90, 150])
@pytest.mark.parametrize(
    "params", [SEEDED, replace(SEEDED, temperature=0.0)], ids=["seeded", "greedy"]
)
def test_a_padded_draft_vocabulary_changes_no_text(draft_size: int, params: SamplingParams) -> None:
    # The target says ids that the small draft does not have, and so do the prompts.
    prompts = [*PROMPTS, [95, 94, 93]]
    plain = texts(Engine(target("llama")).generate(prompts, params))
    assert draft_size > 95 or max(t for (text,) in plain for t in text) >= draft_size
    small = tiny.model("llama", 3, vocab_size=draft_size)
    same = text_tokenizer()
    over = SpeculativeDrafter(small, RandomDrafter(150), inner_gamma=2, tokenizer=same)
    for draft in (ModelDrafter(small, same), RandomDrafter(draft_size), over):
        results = Engine(target("llama"), same, draft, gamma=3).generate(prompts, params)
        assert texts(results) == plain
        assert {result.error for result in results} == {None}


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_no_illegal_id_ever_with_padded_vocabularies(verifier: str) -> None:
    allowed = (3, 80, 81, 95)
    params = replace(SEEDED, verifier=verifier, allowed_token_ids=allowed, temperature=2.0)
    for size in (70, 150):
        draft = ModelDrafter(tiny.model("llama", 3, vocab_size=size), text_tokenizer())
        engine = Engine(target("llama"), text_tokenizer(), draft, gamma=3)
        results = engine.generate(PROMPTS, params)
        assert {t for result in results for t in result.token_ids} == set(allowed)


# --- drafters that break the contract -------------------------------------------------------


@dataclass
class Broken(Drafter):
    """Hands over what it is given."""

    rows: list[list[int]]
    probs: torch.Tensor | None = None
    name: str = "broken"

    def propose(self, context: DraftContext) -> Draft:
        return replace(Draft.certain(self.rows, context.device), probs=self.probs)


def laws(*rows: Sequence[float]) -> torch.Tensor:
    """One sequence; each law begins with these numbers and goes on with zeros."""
    return torch.tensor([[[*row, *[0.0] * (96 - len(row))] for row in rows]])


OF_ALL: list[tuple[Drafter, str]] = [
    (Broken([[5], [5]]), "gave 2 drafts for 1 sequences"),
    (Broken([[0]], torch.ones(1, 1, 5)), "laws of shape"),
]
OF_ONE: list[tuple[Drafter, str]] = [
    (Broken([[5] * 4]), "drafted 4 tokens of 3"),
    (Broken([[96]]), "an id outside 0 … 95"),
    (Broken([[-1]]), "an id outside 0 … 95"),
    (Broken([[0]], laws([0.5])), "sums to 0.5, not 1"),
    (Broken([[0, 0]], laws([1.0], [NAN])), "sums to nan, not 1"),
]


@pytest.mark.parametrize(("broken", "why"), OF_ALL)
def test_a_drafter_whose_whole_draft_has_a_wrong_form_is_named(broken: Drafter, why: str) -> None:
    params = replace(SEEDED, verifier="block")
    drafters = [broken, SpeculativeDrafter(twin("llama"), broken, inner_gamma=3)]
    for draft, gamma in zip(drafters, (3, 4), strict=True):
        with pytest.raises(DraftError, match=why) as caught:
            Engine(target("llama"), draft=draft, gamma=gamma).generate(PROMPTS[0], params)
        assert "broken" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("broken", "why"), OF_ONE)
def test_a_breach_for_one_sequence_ends_it_and_is_named(broken: Drafter, why: str) -> None:
    params = replace(SEEDED, verifier="block")
    drafters = [broken, SpeculativeDrafter(twin("llama"), broken, inner_gamma=3)]
    for draft, gamma in zip(drafters, (3, 4), strict=True):
        (result,) = Engine(target("llama"), draft=draft, gamma=gamma).generate(PROMPTS[0], params)
        assert result.finish_reason is FinishReason.ERROR
        assert result.error is not None
        assert why in result.error
        assert result.error.startswith("drafter broken ")
        assert "\n" not in result.error


@dataclass
class BreaksForOne(Drafter):
    """Honest, but from its second round on one sequence gets an id that there is none of."""

    name: str = "breaks"
    rounds: int = 0

    def propose(self, context: DraftContext) -> Draft:
        self.rounds += 1
        rows = [[7, 8][: one.gamma] for one in context.sequences]
        for row, one in zip(rows, context.sequences, strict=True):
            if self.rounds > 1 and row and one.tokens[: one.num_prompt] == PROMPTS[1]:
                row[-1] = 96
        return Draft.certain(rows, context.device)


@pytest.mark.parametrize("params", [SEEDED, replace(SEEDED, temperature=0.0)], ids=["hot", "cold"])
def test_the_others_of_a_batch_go_on_with_their_own_texts(params: SamplingParams) -> None:
    plain = texts(Engine(target("llama")).generate(PROMPTS, params))
    results = Engine(target("llama"), draft=BreaksForOne(), gamma=2).generate(PROMPTS, params)
    for index, (result, (text,)) in enumerate(zip(results, plain, strict=True)):
        if index == 1:
            assert result.error == "drafter breaks drafted an id outside 0 … 95"
            assert 0 < len(result.token_ids) < len(text)
            assert result.token_ids == text[: len(result.token_ids)]
        else:
            assert (result.error, result.token_ids) == (None, text)


def test_a_hierarchical_drafter_outside_an_engine_says_so() -> None:
    drafter = SpeculativeDrafter(twin("llama"), PromptLookupDrafter())
    with pytest.raises(DraftError, match="inside an Engine only"):
        drafter.propose(Recording([view([5, 6], 2)]))


def test_what_is_no_draft_is_named() -> None:
    """In a process of its own: these tests check types before we do."""
    script = """
import torch
from draftsmith import Draft, Drafter, Engine
from tests.engine.clockwork import Clock, Clockwork
def said(proposed):
    class Odd(Drafter):
        name = "odd"
        def propose(self, context):
            return proposed()
    model = Clockwork(Clock(), lambda rows: 0.0, lambda place, token: 3)
    try:
        Engine(model, draft=Odd(), gamma=2).generate([5], max_tokens=4)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
print(said(lambda: None))
print(said(lambda: [[5]]))
print(said(lambda: Draft.certain([["a"]], torch.device("cpu"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=300, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "DraftError: drafter odd proposed a NoneType: return a Draft (Draft.certain)",
        "DraftError: drafter odd proposed a list: return a Draft (Draft.certain)",
        "DraftError: a draft is made of token ids, got 'a'",
    ]
