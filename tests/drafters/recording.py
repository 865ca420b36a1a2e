"""A draft context that decides what is drawn, and keeps the logits it was shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from draftsmith.drafters import Draft, SequenceView
from draftsmith.drafters.trees import Growth


class Call(NamedTuple):
    """One `draw`."""

    rows: list[int]
    logits: Tensor
    confidences: Sequence[float] | None = None


@dataclass
class Recording:
    """Draws `forced[row]` in order, then the token 0 for ever."""

    sequences: Sequence[SequenceView]
    forced: Sequence[Iterable[int]] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    calls: list[Call] = field(default_factory=list)
    takes_trees: bool = False

    def __post_init__(self) -> None:
        self.tokens: list[list[int]] = [[] for _ in self.sequences]
        self.queues = [iter(queue) for queue in self.forced]

    def states(self, row: int) -> Tensor:
        raise AssertionError("this round hands out no states")

    def draw(
        self, rows: Sequence[int], logits: Tensor, confidences: Sequence[float] | None = None
    ) -> list[int]:
        self.calls.append(Call(list(rows), logits.clone(), confidences))
        for row in rows:
            token = next(self.queues[row], 0) if self.queues else 0
            self.tokens[row].append(token)
        return [self.tokens[row][-1] for row in rows]

    def least_confidence(self, row: int) -> float:
        del row
        return 0.0

    def wanting(self, rows: Sequence[int]) -> list[int]:
        return [row for row in rows if len(self.tokens[row]) < self.sequences[row].gamma]

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        return [[] for _ in rows]

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Growth:
        raise AssertionError("this round grows no trees")

    def drawn(self) -> Draft:
        return Draft.certain(self.tokens, self.device)

    def logits_of(self, row: int) -> list[Tensor]:
        """What was shown for one sequence, in order."""
        return [call.logits[call.rows.index(row)] for call in self.calls if row in call.rows]

    def confidences_of(self, row: int) -> list[float | None]:
        """How sure the drafter was of one sequence's tokens; None where it did not say."""
        return [
            None if call.confidences is None else call.confidences[call.rows.index(row)]
            for call in self.calls
            if row in call.rows
        ]


def view(
    tokens: Sequence[int], gamma: int, id: int = 0, source: Sequence[int] = ()
) -> SequenceView:
    return SequenceView(id, tokens, 1, source, gamma)
