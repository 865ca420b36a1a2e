"""Rungs 0 and 1: every verifier is exact by enumeration, and every planted bug is caught."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.audit.planted import BUGS
from draftsmith.audit.proof import (
    EXACT,
    a_world,
    distance_of_a_round,
    distance_of_a_tree,
    distance_of_rounds,
    num_seeded_differences,
)
from draftsmith.core.enumeration import Tokens, coupled_text, plain_text, round_law
from draftsmith.core.verify import (
    BlockVerifier,
    CoupledVerifier,
    RejectionVerifier,
    ThresholdVerifier,
)
from tests.grids import beginning

VERIFIERS = [RejectionVerifier(), BlockVerifier()]


def honest_cut(draft: Tokens, laws: Tensor) -> int:
    """Stops before a token whose law is flat, whatever token came of it."""
    for index in range(len(draft)):
        if laws[index].max() < 0.5:
            return index
    return len(draft)


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
@pytest.mark.parametrize("chunk", beginning(range(5), 1))
def test_one_round_has_the_targets_law_in_200_worlds(
    verifier: ThresholdVerifier, chunk: int
) -> None:
    for seed in range(40 * chunk, 40 * chunk + 40):
        world, gamma = a_world(seed), 1 + seed % 3
        history = (0, 1, 2, 0)[: seed % 5]
        assert distance_of_a_round(world, verifier, gamma, history) <= EXACT, f"world {seed}"


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
@pytest.mark.parametrize("chunk", beginning(range(4), 1))
def test_many_rounds_have_the_targets_law(verifier: ThresholdVerifier, chunk: int) -> None:
    for seed in range(3 * chunk, 3 * chunk + 3):
        distance = distance_of_rounds(a_world(seed), verifier, gamma=2, length=4)
        assert distance <= EXACT, f"world {seed}"


@pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda v: v.name)
def test_a_cut_that_looks_at_the_law_only_is_exact(verifier: ThresholdVerifier) -> None:
    for seed in range(40):
        distance = distance_of_a_round(a_world(seed), verifier, 3, (), honest_cut)
        assert distance <= EXACT, f"world {seed}"


@pytest.mark.parametrize("gamma", beginning([0, 1, 2, 3], 3))
def test_the_coupled_verifier_gives_the_plain_text_for_every_possible_draft(gamma: int) -> None:
    differing, total = num_seeded_differences(CoupledVerifier(), num_worlds=12, gamma=gamma)
    assert total >= 12
    assert differing == 0


def test_a_perfect_guess_is_kept_whole_by_the_coupled_verifier() -> None:
    world = a_world(3)
    plain = plain_text(world, length=8, seed=3)
    proposals: list[Tokens] = []

    def oracle(text: Tokens) -> Tokens:
        proposals.append(plain[len(text) : len(text) + 3])
        return proposals[-1]

    assert coupled_text(world, CoupledVerifier(), oracle, 8, seed=3) == plain
    assert len(proposals) == 2  # two rounds of three kept drafts and one emitted token


@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug.model is None])
def test_the_enumeration_catches(name: str) -> None:
    bug = BUGS[name]
    for part, verifier in (bug.verifiers or {"rejection": RejectionVerifier()}).items():
        if isinstance(verifier, ThresholdVerifier):
            found = (
                distance_of_a_round(a_world(seed, verifier), verifier, gamma=2, cut=bug.cut)
                for seed in range(30)
            )
            if verifier.tree_rule is not None:
                trees = (distance_of_a_tree(a_world(n), verifier, [-1, -1, 0]) for n in range(6))
                found = itertools.chain(found, trees)
            is_caught = any(distance > 1e-6 for distance in found)  # in the first world that can
        else:
            is_caught = num_seeded_differences(verifier, 4, gamma=2)[0] > 0
        assert is_caught, f"{name} went unseen in {part}"


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
