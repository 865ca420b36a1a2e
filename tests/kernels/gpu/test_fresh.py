# Triton has no types:
# pyright: basic
"""What rounds leave for a head beside its torch twin; on a CPU through Triton's interpreter."""

import torch
from torch import Tensor

from draftsmith.kernels.gpu import fresh, plain_heads
from draftsmith.kernels.gpu.fresh import Fresh, Resumed
from draftsmith.kernels.gpu.verdicts import State
from tests.kernels.gpu.device import DEVICE


def ints(*numbers: object) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def test_what_is_left_and_resumed_is_the_twins() -> None:
    state = State(ints(20, 2, 9), ints(1, 0, 3), ints(4, 0, 6), ints(1, 0, 1))
    # The target's tokens, drafted ones, how many are kept; -1 where no token is allowed.
    found = ints([7, 8, -1, 7, 8, 1], [5, 5, 5, 5, 5, 2], [3, 4, 5, 3, 4, 2])
    told: list[list[Tensor]] = []
    for kernels in (fresh, plain_heads):
        features = torch.zeros(3, 16, 8, device=DEVICE)
        left = Fresh(features, ints(*[[1] * 16] * 3), ints(1, 1, 1))
        kernels.leave(found, state, left)
        nothing = ints(0, 0, 0)
        to = Resumed(nothing, nothing.clone(), ints(*[[0] * 4] * 3), nothing.clone())
        kernels.resume(state, left, to)
        told.append([left.tokens, left.nums, *to])
    for one, other in zip(*told, strict=True):
        assert torch.equal(one, other)
    tokens, nums, starts, widths, _, lasts = told[0]
    assert tokens[0, :4].tolist() == [7, 8, 0, 1]
    assert nums.tolist() == [2, 1, 3]
    assert starts.tolist() == [17, 0, 5]
    assert widths.tolist() == [2, 0, 3]
    assert lasts.tolist() == [1, 4, 10]
