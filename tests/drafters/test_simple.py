"""Random tokens and the one-pass interface."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from draftsmith.drafters import (
    BlockDrafter,
    Draft,
    DraftContext,
    Drafter,
    RandomDrafter,
    SequenceView,
)
from tests.drafters.recording import Recording, view

VOCAB = 10


@dataclass
class Counting(BlockDrafter):
    """Counts its passes; the logits of row b, step s are all b + s / 10."""

    calls: list[int] = field(default_factory=list)

    def block_logits(self, sequences: Sequence[SequenceView], gamma: int) -> Tensor:
        self.calls.append(gamma)
        rows = torch.arange(len(sequences)).view(-1, 1, 1)
        steps = torch.arange(gamma).view(1, -1, 1) / 10
        return (rows + steps).expand(len(sequences), gamma, VOCAB)


def test_a_block_drafter_makes_one_pass_of_the_longest_gamma() -> None:
    drafter = Counting()
    context = Recording([view([1], gamma=2), view([2], gamma=0), view([3], gamma=3)])
    drafter.propose(context)
    assert drafter.calls == [3]
    assert [call.rows for call in context.calls] == [[0, 2], [0, 2], [2]]


def test_a_block_drafter_hands_each_row_its_own_logits() -> None:
    context = Recording([view([1], gamma=1), view([2], gamma=0), view([3], gamma=2)])
    Counting().propose(context)
    first, second = context.calls
    assert first.logits[:, 0].tolist() == [0.0, 2.0]
    torch.testing.assert_close(second.logits[:, 0], torch.tensor([2.1]))


def test_a_block_drafter_is_not_asked_for_nothing() -> None:
    drafter = Counting()
    draft = drafter.propose(Recording([view([1], gamma=0), view([2], gamma=0)]))
    assert drafter.calls == []
    assert draft.num_drafted.tolist() == [0, 0]


def test_a_random_drafter_finds_every_token_equally_likely() -> None:
    context = Recording([view([1], gamma=2)])
    RandomDrafter(VOCAB).propose(context)
    for call in context.calls:
        assert call.logits.softmax(-1).tolist() == [[pytest.approx(1 / VOCAB)] * VOCAB]


@pytest.mark.parametrize("kind", [Drafter, BlockDrafter])
def test_the_interfaces_cannot_be_made(kind: type[Drafter]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_a_drafter_of_three_lines_works() -> None:
    class Repeat(Drafter):
        def propose(self, context: DraftContext) -> Draft:
            rows = [[one.tokens[-1]] * one.gamma for one in context.sequences]
            return Draft.certain(rows, context.device)

    draft = Repeat().propose(Recording([view([4, 5], gamma=3), view([6], gamma=1)]))
    assert draft.tokens.tolist() == [[5, 5, 5], [6, -1, -1]]
