"""The sampling transform on a GPU beside the core's, and beside itself in other company."""

import pytest
import torch
from torch import Tensor

from draftsmith.core.laws import Cuts, History, SamplingLaw
from draftsmith.core.params import SamplingParams
from draftsmith.kernels.gpu import laws as kernel
from draftsmith.kernels.gpu.columns import Columns, columns_of
from draftsmith.kernels.gpu.laws import laws
from tests.kernels.gpu.device import DEVICE

VOCAB = 603  # three programs, the last of them not whole
NONE = torch.empty(0, dtype=torch.long)
PLAIN = Cuts(1.0, 0, 1.0, 0.0)
CUTS = (
    PLAIN,
    Cuts(0.8, 0, 0.95, 0.0),
    Cuts(1.3, 20, 1.0, 0.0),
    Cuts(0.7, 20, 0.8, 0.0),
    Cuts(1.0, 0, 1.0, 0.05),
    Cuts(0.6, 40, 0.9, 0.1),
    Cuts(1e-30, 0, 0.5, 0.0),
    Cuts(0.0, 5, 0.5, 0.3),
    Cuts(1.0, 500, 0.9999, 0.0),
    Cuts(5.0, 0, 0.999, 0.0),
    Cuts(1.0, VOCAB, 1.0, 0.0),
)


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_IDS", 256)
    monkeypatch.setattr(kernel, "_NEAR", 64)
    monkeypatch.setattr(kernel, "_BINS", 512)


def columns(cuts: tuple[Cuts, ...]) -> Columns:
    return columns_of(cuts, DEVICE)


def logits(rows: int, spread: float = 3.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, VOCAB, generator=generator)


def wanted(rows: Tensor, one: Cuts) -> Tensor:
    law = SamplingLaw(SamplingParams(**one._asdict()), ())
    return law(rows, History(NONE, NONE), NONE)


def assert_same(found: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), want, rtol=2e-5, atol=1e-9)
    assert torch.equal(found.cpu() > 0, want > 0)


@pytest.mark.parametrize("one", CUTS, ids=str)
def test_laws_are_those_of_the_core(one: Cuts) -> None:
    rows = logits(3)
    found = laws(rows.to(DEVICE), columns((one,)), VOCAB)
    assert_same(found, wanted(rows, one))


@pytest.mark.parametrize("spread", [0.0, 0.1, 20.0, 60.0])
@pytest.mark.parametrize("one", [CUTS[1], CUTS[3], CUTS[5]], ids=str)
def test_ties_and_rows_near_and_far_are_cut_as_in_the_core(one: Cuts, spread: float) -> None:
    """All tokens near the best, or few; with scores that many share, the lowest ids stay."""
    rows = (4 * logits(2, spread)).round() / 4
    assert_same(laws(rows.to(DEVICE), columns((one,)), VOCAB), wanted(rows, one))


@pytest.mark.parametrize("one", [CUTS[1], CUTS[5]], ids=str)
def test_the_search_of_a_whole_row_finds_what_the_bins_do(
    one: Cuts, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = logits(2).to(DEVICE)
    found = laws(rows, columns((one,)), VOCAB)
    monkeypatch.setattr(kernel, "_NEAR", 2)
    assert torch.equal(laws(rows, columns((one,)), VOCAB), found)


def test_a_row_is_the_same_whatever_stands_beside_it() -> None:
    rows = logits(len(CUTS)).to(DEVICE)
    together = laws(rows, columns(CUTS), VOCAB)
    for row, one in enumerate(CUTS):
        alone = laws(rows[row : row + 1], columns((one,)), VOCAB)
        assert torch.equal(alone[0], together[row])


def test_rows_of_a_sequence_share_its_numbers() -> None:
    rows = logits(6).to(DEVICE)
    found = laws(rows, columns(CUTS[1:4]), VOCAB)
    for row in range(6):
        want = laws(rows[row : row + 1], columns((CUTS[1 + row // 2],)), VOCAB)
        assert torch.equal(found[row], want[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_no_distribution_has_no_mass_and_harms_no_other(bad: float) -> None:
    rows = logits(2)
    rows[0, 550] = bad
    for one in (PLAIN, CUTS[5], CUTS[7]):
        found = laws(rows.to(DEVICE), columns((one,)), VOCAB)
        assert not found[0].any()
        assert_same(found[1:], wanted(rows[1:], one))
    assert not laws(torch.full((1, 9), -torch.inf, device=DEVICE), columns((PLAIN,)), 9).any()


def test_banned_tokens_stay_out() -> None:
    rows = logits(1)
    rows[0, 7:] = -torch.inf
    for one in (PLAIN, *CUTS[3:6]):
        assert_same(laws(rows.to(DEVICE), columns((one,)), VOCAB), wanted(rows, one))


def test_ids_that_the_model_lacks_or_pads_have_no_mass() -> None:
    rows = logits(2).to(DEVICE)
    fewer = laws(rows, columns(CUTS[1:2]), VOCAB - 100)
    assert_same(fewer, wanted(rows[:, :-100].cpu(), CUTS[1]))
    more = laws(rows, columns(CUTS[1:2]), VOCAB + 300)
    assert torch.equal(more[:, :VOCAB], laws(rows, columns(CUTS[1:2]), VOCAB))
    assert not more[:, VOCAB:].any()
