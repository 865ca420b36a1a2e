"""Rungs 0 and 1: every verifier is exact by enumeration, and every planted bug is caught."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core.enumeration import (
    Cut,
    RandomWorld,
    Tokens,
    coupled_text,
    plain_law,
    plain_text,
    round_law,
    text_law,
    total_variation,
)
from draftsmith.core.verify import (
    BlockVerifier,
    CoupledVerifier,
    RejectionVerifier,
    ThresholdVerifier,
)
from tests.core import planted

EXACT = 1e-12
VERIFIERS = [RejectionVerifier(), BlockVerifier()]
MISMATCHES = (0.2, 0.6, 1.0)


def a_world(seed: int, kind: type[RandomWorld] = RandomWorld) -> RandomWorld:
    return kind(seed, vocab=3 + seed % 2, mismatch=MISMATCHES[seed % 3])


def distance_of_a_round(
    world: RandomWorld,
    verifier: ThresholdVerifier,
    gamma: int,
    history: Tokens = (),
    cut: Cut | None = None,
) -> float:
    """TV between one round, continued by plain draws, and plain decoding."""
    length = gamma + 1
    law: dict[Tokens, float] = {}
    for tokens, mass in round_law(world, verifier, gamma, history, cut).items():
        rest = plain_law(world, length - len(tokens), (*history, *tokens))
        for tail, share in rest.items():
            law[(*tokens, *tail)] = law.get((*tokens, *tail), 0.0) + mass * share
    return total_variation(law, plain_law(world, length, history))


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
@pytest.mark.parametrize("chunk", range(4))
def test_one_round_has_the_targets_law_in_200_worlds(
    verifier: ThresholdVerifier, chunk: int
) -> None:
    for seed in range(50 * chunk, 50 * chunk + 50):
        world, gamma = a_world(seed), 1 + seed % 3
        history = (0, 1, 2, 0)[: seed % 5]
        assert distance_of_a_round(world, verifier, gamma, history) <= EXACT, f"world {seed}"


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_many_rounds_have_the_targets_law(verifier: ThresholdVerifier) -> None:
    for seed in range(12):
        world = a_world(seed)
        law = text_law(world, verifier, gamma=2, length=4)
        assert total_variation(law, plain_law(world, 4)) <= EXACT, f"world {seed}"


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_a_cut_that_looks_at_the_law_only_is_exact(verifier: ThresholdVerifier) -> None:
    for seed in range(40):
        distance = distance_of_a_round(a_world(seed), verifier, 3, (), planted.honest_cut)
        assert distance <= EXACT, f"world {seed}"


@pytest.mark.parametrize("gamma", [0, 1, 2, 3])
def test_the_coupled_verifier_gives_the_plain_text_for_every_possible_draft(gamma: int) -> None:
    for seed in range(12):
        world = a_world(seed)
        plain = plain_text(world, length=4, seed=seed)
        for draft in itertools.product(range(world.vocab), repeat=gamma):
            text = coupled_text(world, CoupledVerifier(), lambda _, d=draft: d, 4, seed)
            assert text == plain


def test_a_perfect_guess_is_kept_whole_by_the_coupled_verifier() -> None:
    world = a_world(3)
    plain = plain_text(world, length=8, seed=3)
    proposals: list[Tokens] = []

    def oracle(text: Tokens) -> Tokens:
        proposals.append(plain[len(text) : len(text) + 3])
        return proposals[-1]

    assert coupled_text(world, CoupledVerifier(), oracle, 8, seed=3) == plain
    assert len(proposals) == 2  # two rounds of three kept drafts and one emitted token


BUGS: dict[str, tuple[ThresholdVerifier, type[RandomWorld], Cut | None]] = {
    "wrong residual": (planted.WrongResidual(RejectionVerifier()), RandomWorld, None),
    "wrong residual under block": (planted.WrongResidual(BlockVerifier()), RandomWorld, None),
    "draft law is not the law sampled from": (RejectionVerifier(), planted.ArgmaxDraft, None),
    "block: draft law is not the law sampled from": (BlockVerifier(), planted.ArgmaxDraft, None),
    "<= for <": (planted.AcceptsOnEquality(RejectionVerifier()), RandomWorld, None),
    "block: <= for <": (planted.AcceptsOnEquality(BlockVerifier()), RandomWorld, None),
    "shared noise streams": (planted.SharedStreams(RejectionVerifier()), RandomWorld, None),
    "block: shared noise streams": (planted.SharedStreams(BlockVerifier()), RandomWorld, None),
    "row off by one": (planted.RowOffByOne(RejectionVerifier()), RandomWorld, None),
    "anticipating cut": (RejectionVerifier(), RandomWorld, planted.anticipating_cut),
    "block: anticipating cut": (BlockVerifier(), RandomWorld, planted.anticipating_cut),
    "block thresholds with the token residual": (
        planted.BlockWithTokenResidual(),
        RandomWorld,
        None,
    ),
    "bf16 draft law": (RejectionVerifier(), planted.Bfloat16Draft, None),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_enumeration_catches(name: str) -> None:
    verifier, kind, cut = BUGS[name]
    worst = max(
        distance_of_a_round(a_world(seed, kind), verifier, gamma=2, cut=cut) for seed in range(30)
    )
    assert worst > 1e-6, f"{name} went unseen"


@given(seed=st.integers(0, 2**32), gamma=st.integers(1, 2))
def test_block_verification_never_commits_less_than_token_verification(
    seed: int, gamma: int
) -> None:
    world = a_world(seed)
    token, block = (
        sum(len(text) * mass for text, mass in round_law(world, verifier, gamma).items())
        for verifier in VERIFIERS
    )
    assert block >= token - EXACT


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_the_verdict_is_constant_on_each_acceptance_cell(verifier: ThresholdVerifier) -> None:
    """The enumeration represents a cell by its left end; the right end must agree."""
    from draftsmith.core.enumeration import _all_drafts  # pyright: ignore[reportPrivateUsage]

    for seed in range(10):
        check, _ = _all_drafts(a_world(seed), 3, (), None)
        limits = verifier.thresholds(check)
        emit = torch.full((len(limits),), 0.5, dtype=torch.float64)
        for pattern in itertools.product((True, False), repeat=3):
            keeps = torch.tensor(pattern)
            left = torch.where(keeps, torch.zeros_like(limits), limits)
            right = torch.nextafter(
                torch.where(keeps, limits, torch.ones_like(limits)), torch.tensor(0.0).double()
            )
            possible = ((left <= right) & (torch.where(keeps, limits, 1 - limits) > 0)).all(1)
            one = verifier.decide(check, left, emit).num_accepted[possible]
            other = verifier.decide(check, right, emit).num_accepted[possible]
            assert one.tolist() == other.tolist()
