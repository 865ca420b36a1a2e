"""Sums along a vocabulary: the exact ones beside the plain, and rows that do not matter."""

import torch

from draftsmith.core.laws import Cuts
from draftsmith.core.sampling_table import LogitRows, laws_of_rows
from draftsmith.core.sums import exact_running_sums, row_sums, running_sums
from draftsmith.core.verdict import draw

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VOCAB = 152_000


def _laws(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(rows, VOCAB, generator=generator)).softmax(-1).to(DEVICE)


def test_exact_running_sums_are_the_plain_ones_to_rounding() -> None:
    laws = _laws(2)
    plain = laws.double().cumsum(-1)
    found = exact_running_sums(laws)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    assert bool((found.diff(dim=-1) >= 0).all())
    # No order matters: from the end the whole is the same.
    assert torch.equal(exact_running_sums(laws.flip(-1))[:, -1], found[:, -1])


def test_no_row_depends_on_those_beside_it() -> None:
    laws = _laws(8)
    for sums in (running_sums, row_sums):
        together = sums(laws)
        for rows in (1, 3):
            assert torch.equal(sums(laws[:rows].contiguous()), together[:rows])
    uniforms = torch.linspace(0, 0.999, 8, device=DEVICE, dtype=torch.float64)
    tokens = draw(laws, uniforms)
    alone = [int(draw(laws[i : i + 1], uniforms[i : i + 1])) for i in range(8)]
    assert tokens.tolist() == alone


def test_a_cut_law_does_not_depend_on_the_rows_beside_it() -> None:
    logits = _laws(8).log().unsqueeze(0)
    cuts = Cuts(temperature=0.8, top_k=0, top_p=0.95, min_p=0.01)
    together = laws_of_rows(LogitRows(logits, [(0, i) for i in range(8)], VOCAB), [cuts] * 8)
    for row in (0, 5):
        alone = laws_of_rows(LogitRows(logits, [(0, row)], VOCAB), [cuts])
        assert torch.equal(alone[0], together[row])
