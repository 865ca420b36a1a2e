# Triton has no types:
# pyright: basic
"""The norm of a head's inputs beside its torch twin; on a CPU through Triton's interpreter."""

import pytest
import torch

from draftsmith.kernels.gpu import norms, plain_heads
from tests.kernels.gpu.device import DEVICE


@pytest.mark.parametrize("width", [40, 1500])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_norm_is_its_twins(width: int, groups: int) -> None:
    chance = torch.Generator().manual_seed(0)
    lines = torch.randn(6, width, generator=chance).to(DEVICE)
    weight = torch.randn(groups, width, generator=chance).to(DEVICE)
    found, wanted = (torch.zeros(6, width, device=DEVICE) for _ in range(2))
    norms.norm(lines, weight, found, 1e-5)
    plain_heads.norm(lines, weight, wanted, 1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_rows_are_taken_by_index_and_put_into_a_part_of_wider_ones() -> None:
    chance = torch.Generator().manual_seed(0)
    table = torch.randn(9, 40, generator=chance).to(DEVICE)
    weight = torch.randn(1, 40, generator=chance).to(DEVICE)
    index = torch.tensor([8, 0, 3, 3], dtype=torch.int32, device=DEVICE)
    found, wanted = (torch.full((4, 100), 7.0, device=DEVICE) for _ in range(2))
    norms.norm(table, weight, found[:, 40:80], 1e-5, index)
    plain_heads.norm(table, weight, wanted[:, 40:80], 1e-5, index)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[2], found[3])
    alone = torch.empty(1, 40, device=DEVICE)
    norms.norm(table[3:4], weight, alone, 1e-5)
    assert torch.equal(alone[0], found[2, 40:80])
