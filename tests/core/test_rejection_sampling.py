"""The classical baseline: exact by enumeration, and never better than speculative sampling."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.core import rejection_sampling
from draftsmith.core.enumeration import RandomWorld
from draftsmith.core.lenience import lenient_beta
from draftsmith.core.rejection_sampling import (
    classical_acceptance,
    sample_iteratively,
    sample_once,
    worst_ratio,
)
from draftsmith.core.verdict import PAD_TOKEN
from draftsmith.core.verify import Check, RejectionVerifier

EXACT = 1e-12
SEEDS = range(60)


def laws(seed: int, mismatch: float = 0.5) -> tuple[Tensor, Tensor]:
    """A target and a draft, `[1, vocab]`; with a mismatch below 1, all of the target's tokens are
    the draft's too."""
    world = RandomWorld(seed, vocab=3 + seed % 3, mismatch=mismatch)
    return world.target(()).unsqueeze(0), world.draft(()).unsqueeze(0)


def cells(edges: list[float]) -> tuple[Tensor, Tensor]:
    """Left ends and measures of the cells into which edges cut [0, 1)."""
    ends = torch.tensor(sorted({0.0, 1.0, *edges}), dtype=torch.float64)
    ends = ends[(ends >= 0) & (ends <= 1)]
    return ends[:-1], ends.diff()


def tries(target: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
    """Every cell of (draw, test) on which a try's outcome is constant, and its measure."""
    drawn, drawn_mass = cells(draft[0].cumsum(0).tolist())
    thresholds = (target / (draft * worst_ratio(target, draft)))[0]
    test, test_mass = cells([edge for edge in thresholds.tolist() if edge == edge])
    # Middles: the very edges are where rounding decides.
    pairs = torch.cartesian_prod(drawn + drawn_mass / 2, test)
    return pairs, torch.cartesian_prod(drawn_mass, test_mass).prod(1)


def summed(tokens: Tensor, masses: Tensor, vocab: int) -> Tensor:
    """The law of tokens over weighted cells; the last entry is of none."""
    law = torch.zeros(vocab + 1, dtype=torch.float64)
    return law.index_add_(0, torch.where(tokens == PAD_TOKEN, vocab, tokens), masses)


def test_one_try_and_a_fresh_draw_have_the_targets_law() -> None:
    for seed in SEEDS:
        target, draft = laws(seed)
        pairs, masses = tries(target, draft)
        last, last_masses = cells(target[0].cumsum(0).tolist())
        grid = torch.cartesian_prod(torch.arange(len(pairs)), torch.arange(len(last)))
        middles = (last + last_masses / 2)[grid[:, 1]]
        uniforms = torch.cat([pairs[grid[:, 0]], middles.unsqueeze(1)], dim=1)
        count = len(uniforms)
        tokens = sample_once(target.expand(count, -1), draft.expand(count, -1), uniforms)
        law = summed(tokens, masses[grid[:, 0]] * last_masses[grid[:, 1]], target.shape[1])
        assert float((law[:-1] - target[0]).abs().sum()) <= EXACT, f"world {seed}"


def test_iterating_has_the_targets_law_and_fails_as_often_as_said() -> None:
    num_tries = 2
    for seed in SEEDS:
        target, draft = laws(seed)
        pairs, masses = tries(target, draft)
        grid = torch.cartesian_prod(*[torch.arange(len(pairs))] * num_tries)
        count = len(grid)
        tokens = sample_iteratively(target.expand(count, -1), draft.expand(count, -1), pairs[grid])
        law = summed(tokens, masses[grid].prod(1), target.shape[1])
        failure = float((1 - classical_acceptance(target, draft)) ** num_tries)
        assert float(law[-1]) == pytest.approx(failure, abs=EXACT), f"world {seed}"
        assert float((law[:-1] - (1 - failure) * target[0]).abs().sum()) <= EXACT


def test_one_try_is_kept_as_often_as_the_formula_says() -> None:
    for seed in SEEDS:
        target, draft = laws(seed)
        acceptance = classical_acceptance(target, draft)
        assert float(acceptance) == pytest.approx(float(1 / worst_ratio(target, draft)), abs=EXACT)
        pairs, masses = tries(target, draft)
        count = len(pairs)
        tokens = sample_iteratively(
            target.expand(count, -1), draft.expand(count, -1), pairs.unsqueeze(1)
        )
        kept = float(masses[tokens != PAD_TOKEN].sum())
        assert kept == pytest.approx(float(acceptance), abs=EXACT), f"world {seed}"


@given(seed=st.integers(0, 2**32), mismatch=st.floats(0.0, 1.0))
def test_speculative_sampling_keeps_at_least_as_much(seed: int, mismatch: float) -> None:
    target, draft = laws(seed, mismatch)
    beta = lenient_beta(target, draft)
    assert float(classical_acceptance(target, draft)) <= float(beta) + EXACT


def test_it_is_far_worse_where_one_token_is_rare_in_the_draft() -> None:
    target = torch.tensor([[0.5, 0.49, 0.01]])
    draft = torch.tensor([[0.5, 0.4999, 0.0001]])
    assert float(lenient_beta(target, draft)) > 0.99
    assert float(classical_acceptance(target, draft)) == pytest.approx(0.01, rel=1e-3)


def test_a_token_that_the_draft_lacks_stops_it_altogether() -> None:
    target, draft = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    assert worst_ratio(target, draft).tolist() == [torch.inf]
    assert classical_acceptance(target, draft).tolist() == [0.0]
    uniforms = torch.zeros(1, 5, 2, dtype=torch.float64)
    assert sample_iteratively(target, draft, uniforms).tolist() == [PAD_TOKEN]
    # Speculative sampling keeps half of these drafts.
    check = Check(torch.tensor([[0]]), torch.tensor([1]), draft[None], target[None].expand(1, 2, 2))
    assert RejectionVerifier().thresholds(check).tolist() == [[0.5]]


def test_a_test_without_the_worst_ratio_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: M = 1."""

    def one(target: Tensor, draft: Tensor) -> Tensor:
        del draft
        return target.new_ones(len(target))

    monkeypatch.setattr(rejection_sampling, "worst_ratio", one)
    with pytest.raises(AssertionError):
        test_one_try_and_a_fresh_draw_have_the_targets_law()
