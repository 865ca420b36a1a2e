"""Rung 3, end to end: what the engine samples follows the law computed from the target.

The noise is seeded, so a run is the same every time; the stated rates speak of the choice of seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from draftsmith.audit.planted import WrongResidual
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.verify import VERIFIERS, RejectionVerifier, ThresholdVerifier
from draftsmith.drafters import Draft, DraftContext, Drafter, ModelDrafter
from draftsmith.engine.control.contract import Choice, Pace, Sample
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.models.contract import LanguageModel, Rows
from tests import tiny
from tests.engine.kit import Ramp
from tests.statistics import assert_law

VOCAB = 3
LENGTH = 2
"""The joint law is that of the first tokens; one more may be drafted behind them."""
PROMPT = [2]
TEMPERATURE = 0.8
NUM_SAMPLES = 700
FALSE_FAIL_RATE = 1e-9
DETECTS = 0.36
MANY_SAMPLES = 2000
SMALL_BIAS = 0.22


@cache
def model(seed: int) -> LanguageModel:
    return tiny.model("llama", seed, vocab_size=VOCAB)


def params(verifier: str) -> SamplingParams:
    return SamplingParams(
        temperature=TEMPERATURE,
        frequency_penalty=0.5,
        max_tokens=LENGTH + 1,
        ignore_eos=True,
        n=NUM_SAMPLES,
        seed=5,
        verifier=verifier,
    )


@cache
def exact_law() -> Tensor:
    """The joint law of the first tokens, from the chain rule over every prefix."""
    rule = SamplingLaw(params("block"), ())
    prefixes = list(product(range(VOCAB), repeat=LENGTH - 1))
    texts = [[*PROMPT, *prefix] for prefix in prefixes]
    cache_ = model(14).open_cache()
    logits = model(14).forward(cache_, Rows([cache_.add() for _ in texts], texts))
    joint = torch.zeros((VOCAB,) * LENGTH, dtype=torch.float64)
    empty = torch.empty(0, dtype=torch.long)
    history = History(torch.tensor(PROMPT), empty)
    for prefix, rows in zip(prefixes, logits, strict=True):
        laws = rule(rows[len(PROMPT) - 1 :], history, torch.tensor(prefix)).double()
        mass = torch.stack([laws[i, token] for i, token in enumerate(prefix)]).prod()
        joint[prefix] = mass * laws[-1]
    return joint.flatten()


def sample(drafter: Drafter | None, verifier: str) -> tuple[Tensor, SpeculationStatistics]:
    """The first tokens of many samples, as one number each."""
    engine = Engine(model(14), draft=drafter, gamma=2, max_batch_size=1000)
    result = engine.generate(PROMPT, params(verifier))[0]
    tokens = torch.tensor([one.token_ids[:LENGTH] for one in result.completions])
    places = torch.tensor([VOCAB**i for i in reversed(range(LENGTH))])
    return (tokens * places).sum(dim=1), result.statistics


DRAFTERS: dict[str, Callable[[], Drafter]] = {
    "model": lambda: ModelDrafter(model(10)),
    "hierarchical": lambda: SpeculativeDrafter(model(10), Ramp(VOCAB), inner_gamma=2),
}


@pytest.mark.long
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("verifier", "drafter"),
    [
        ("rejection", "model"),
        ("block", "model"),
        ("block", "hierarchical"),
    ],
)
def test_the_joint_law_of_the_first_tokens_is_the_targets(verifier: str, drafter: str) -> None:
    outcomes, statistics = sample(DRAFTERS[drafter](), verifier)
    assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)
    assert statistics.alpha is not None
    assert 0.3 < statistics.alpha < 0.8, "the draft must be neither useless nor right"


# --- drafts that end by the drafter's confidence ---------------------------------------------


class Doubtful(Pace):
    """Ends a draft behind a token whose law was flat: two draws of three."""

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        return [row for row in rows if not drafts[row] or drafts[row][-1] > 0.5]

    def least_confidence(self, row: int) -> float:
        raise AssertionError("a model's draft is not cut")

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        raise AssertionError("a model's draft is not cut")

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        raise AssertionError("a model drafts no trees")


class Paced(FixedGamma):
    """Gamma tokens at most, or fewer."""

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        return super().choose(sequences)._replace(pace=Doubtful())


class TakesBack(Drafter):
    """Leaves out a token that it drew, because it is unlikely: the bias that no pace may have."""

    def __init__(self, inner: Drafter) -> None:
        self.inner = inner

    def propose(self, context: DraftContext) -> Draft:
        draft = self.inner.propose(context)
        assert draft.probs is not None
        chances = draft.probs.gather(-1, draft.tokens.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        is_likely = (chances > 0.4).long().cumprod(-1)
        return replace(draft, num_drafted=torch.minimum(draft.num_drafted, is_likely.sum(-1)))


def paced_sample(drafter: Drafter, verifier: str) -> tuple[Tensor, SpeculationStatistics]:
    engine = Engine(model(14), draft=drafter, gamma=2, max_batch_size=1000)
    engine.controller = Paced(2)
    many = replace(params(verifier), n=MANY_SAMPLES)
    result = engine.generate(PROMPT, many)[0]
    tokens = torch.tensor([one.token_ids[:LENGTH] for one in result.completions])
    return tokens[:, 0] * VOCAB + tokens[:, 1], result.statistics


@pytest.mark.long
@pytest.mark.statistical
@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_ending_a_draft_by_its_law_leaves_the_targets_law(verifier: str) -> None:
    outcomes, statistics = paced_sample(DRAFTERS["model"](), verifier)
    assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=SMALL_BIAS)
    first, second = statistics.drafted_per_position
    assert 0.1 < second / first < 0.9, "some drafts must end early and others not"


@pytest.mark.long
@pytest.mark.statistical
def test_leaving_out_a_drawn_token_is_caught() -> None:
    outcomes, _ = paced_sample(TakesBack(DRAFTERS["model"]()), "rejection")
    with pytest.raises(AssertionError, match=r"TV .* at rate"):
        assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=SMALL_BIAS)


# --- teeth: bugs that this test must catch --------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize(
    "broken",
    [WrongResidual(RejectionVerifier())],
    ids=lambda broken: type(broken).__name__,
)
def test_a_planted_bug_is_caught_end_to_end(
    monkeypatch: pytest.MonkeyPatch, broken: ThresholdVerifier
) -> None:
    monkeypatch.setitem(VERIFIERS, "rejection", broken)
    outcomes, _ = sample(DRAFTERS["model"](), "rejection")
    with pytest.raises(AssertionError, match=r"TV .* at rate"):
        assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)
