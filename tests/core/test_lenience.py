"""Lenience: what it may do to the law, summed over every draw; and what it must never do."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.audit.planted import WrongResidual
from draftsmith.core.enumeration import (
    RandomWorld,
    Tokens,
    plain_law,
    round_law,
    text_law,
    total_variation,
)
from draftsmith.core.lenience import LenientVerifier, exact_twin, is_spared, lenient_beta
from draftsmith.core.params import SamplingParams
from draftsmith.core.verify import BlockVerifier, Check, RejectionVerifier, ThresholdVerifier
from draftsmith.errors import InvalidRequestError

EXACT = 1e-12
LENIENCES = (0.6, 0.1)
SEEDS = range(40)


class ScaledResidual(LenientVerifier):
    """The other choice that keeps the bound: norm(max(0, target - l draft))."""

    def emitted_law(self, check: Check, num_accepted: Tensor) -> Tensor:
        assert check.draft_probs is not None
        scaled = check._replace(draft_probs=self.lenience * check.draft_probs)
        return RejectionVerifier().emitted_law(scaled, num_accepted)


class ScalesTheTarget(LenientVerifier):
    """Planted: l on the wrong side of the test."""

    def thresholds(self, check: Check) -> Tensor:
        return (super().thresholds(check) * self.lenience**2).clamp(max=1.0)


class TwiceAsLenient(LenientVerifier):
    """Planted: l counts twice."""

    def thresholds(self, check: Check) -> Tensor:
        return (super().thresholds(check) / self.lenience).clamp(max=1.0)


def a_world(seed: int) -> RandomWorld:
    return RandomWorld(seed, vocab=3 + seed % 2, mismatch=(0.3, 0.6, 1.0)[seed % 3])


def excess(world: RandomWorld, verifier: ThresholdVerifier, lenience: float) -> float:
    """The most by which a token's probability, given the text before it, exceeds target / l."""
    length = 3
    law = text_law(world, verifier, gamma=2, length=length)
    worst = -1.0
    for count in range(length):
        for prefix in itertools.product(range(world.vocab), repeat=count):
            masses = [_mass(law, (*prefix, token)) for token in range(world.vocab)]
            if sum(masses) > 1e-9:
                given = torch.tensor(masses, dtype=torch.float64) / sum(masses)
                worst = max(worst, float((given - world.target(prefix) / lenience).max()))
    return worst


def _mass(law: dict[Tokens, float], prefix: Tokens) -> float:
    return sum(mass for text, mass in law.items() if text[: len(prefix)] == prefix)


@pytest.mark.parametrize("lenience", LENIENCES)
@pytest.mark.parametrize("kind", [LenientVerifier, ScaledResidual])
def test_no_token_gets_more_than_its_probability_over_l(
    kind: type[LenientVerifier], lenience: float
) -> None:
    for seed in range(6):
        assert excess(a_world(seed), kind(lenience), lenience) <= EXACT, f"world {seed}"


@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize("kind", [LenientVerifier, ScaledResidual])
def test_without_lenience_the_law_is_the_targets(kind: type[LenientVerifier], gamma: int) -> None:
    for seed in range(6 if gamma < 3 else 2):
        world = a_world(seed)
        law = text_law(world, kind(1.0), gamma, length=3)
        assert total_variation(law, plain_law(world, 3)) <= EXACT, f"world {seed}"


def test_lenience_does_change_the_law() -> None:
    """The option is called lossy with reason."""
    distances = [
        total_variation(
            text_law(a_world(seed), LenientVerifier(0.3), 2, 2), plain_law(a_world(seed), 2)
        )
        for seed in range(8)
    ]
    assert max(distances) > 0.1


@pytest.mark.parametrize("lenience", [1.0, *LENIENCES])
def test_the_formula_of_alpha_is_the_enumerated_acceptance(lenience: float) -> None:
    for seed in SEEDS:
        world = a_world(seed)
        law = round_law(world, LenientVerifier(lenience), gamma=1)
        kept = sum(mass for text, mass in law.items() if len(text) == 2)
        beta = lenient_beta(world.target(()), world.draft(()), lenience)
        assert kept == pytest.approx(float(beta), abs=EXACT), f"world {seed}"


@given(seed=st.integers(0, 2**32), low=st.floats(0.05, 1.0), high=st.floats(0.05, 1.0))
def test_more_lenience_never_keeps_less(seed: int, low: float, high: float) -> None:
    world = a_world(seed)
    betas = [
        float(lenient_beta(world.target(()), world.draft(()), lenience))
        for lenience in sorted((low, high))
    ]
    assert betas[0] >= betas[1] - EXACT
    assert all(0 <= beta <= 1 + EXACT for beta in betas)


@pytest.mark.parametrize("lenience", LENIENCES)
def test_no_residual_comes_nearer_to_the_target(lenience: float) -> None:
    """The distance is what the kept drafts have too much, which nothing drawn later can undo."""
    for seed in SEEDS:
        world = a_world(seed)
        target, draft = world.target(()), world.draft(())
        kept = torch.minimum(draft, target / lenience)
        distances = {
            kind: total_variation(text_law(world, kind(lenience), 1, 1), plain_law(world, 1))
            for kind in (LenientVerifier, ScaledResidual)
        }
        unavoidable = float((kept - target).clamp(min=0).sum())
        assert distances[LenientVerifier] == pytest.approx(unavoidable, abs=EXACT)
        assert distances[ScaledResidual] >= unavoidable - EXACT


@pytest.mark.parametrize(
    "broken",
    [TwiceAsLenient(0.5), WrongResidual(LenientVerifier(0.5))],
    ids=lambda broken: type(broken).__name__,
)
def test_the_bound_catches(broken: ThresholdVerifier) -> None:
    worst = max(excess(a_world(seed), broken, 0.5) for seed in range(6))
    assert worst > 0.01


def test_the_formula_catches_l_on_the_wrong_side() -> None:
    gaps: list[float] = []
    for seed in SEEDS:
        world = a_world(seed)
        law = round_law(world, ScalesTheTarget(0.5), gamma=1)
        kept = sum(mass for text, mass in law.items() if len(text) == 2)
        gaps.append(float(lenient_beta(world.target(()), world.draft(()), 0.5)) - kept)
    assert max(gaps) > 0.1


def test_a_token_without_target_mass_is_never_kept() -> None:
    target = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    check = Check(torch.tensor([[0]]), torch.tensor([1]), torch.tensor([[[1.0, 0.0]]]), target)
    verdict = LenientVerifier(0.001).decide(check, torch.zeros(1, 1), torch.tensor([0.5]))
    assert verdict.tokens.tolist() == [[1, -1]]


# --- argmax ---------------------------------------------------------------------------------


def test_a_draft_is_spared_if_it_is_near_enough_to_the_best() -> None:
    """The inequality the right way round: the paper prints p(x) <= l max(p)."""
    law = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).repeat(5, 1)
    tokens = torch.arange(5)
    assert is_spared(law, tokens, 1.0).tolist() == [True, False, False, False, False]
    assert is_spared(law, tokens, 0.5).tolist() == [True, True, False, False, False]
    assert is_spared(law, tokens, 0.3).tolist() == [True, True, True, False, False]
    assert is_spared(law, tokens, 1e-300).tolist() == [True, True, True, True, False]


def test_a_row_that_is_no_law_spares_nothing() -> None:
    assert not is_spared(torch.zeros(1, 3), torch.tensor([1]), 0.1).any()


# --- the option -----------------------------------------------------------------------------


@pytest.mark.parametrize("verifier", ["block", "coupled"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_only_the_rejection_verifier_is_lenient(verifier: str, temperature: float) -> None:
    with pytest.raises(InvalidRequestError, match="rejection verifier only: drop verifier="):
        SamplingParams(temperature=temperature, lossy_lenience=0.5, verifier=verifier)


@pytest.mark.parametrize("lenience", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_lenience_out_of_range_is_refused(lenience: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"^lossy_lenience must be above 0 and at most 1"):
        SamplingParams(lossy_lenience=lenience)


def test_the_exact_twin_is_exact() -> None:
    block = BlockVerifier()
    assert exact_twin(block) is block
    assert isinstance(exact_twin(LenientVerifier(0.5)), RejectionVerifier)
