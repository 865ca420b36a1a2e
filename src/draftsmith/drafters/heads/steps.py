"""What a drafter asks of a head that goes on step by step, wherever the head runs."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig

__all__ = ["Row", "Span", "StepHead"]


@runtime_checkable
class Row(Protocol):
    """Where a head keeps what it has read of one sequence."""

    length: int
    """Tokens that it holds; a shorter one forgets the last of them."""

    def has_room(self, num_tokens: int) -> bool:
        """Whether there is memory for a sequence of so many tokens."""
        ...


class Span:
    """The new rows of one sequence in a step.

    Args:
        row: Its cache, or a branch of it.
        tokens: Of each new row the id whose embedding it reads.
        position: Of the first.
    """

    __slots__ = ("position", "row", "tokens")

    def __init__(self, row: Row, tokens: Sequence[int], position: int) -> None:
        self.row, self.tokens, self.position = row, tokens, position


@runtime_checkable
class StepHead(Protocol):
    """An EAGLE-3 head over its target's tables."""

    config: HeadConfig
    device: torch.device
    uses_torch_threads: bool
    """Whether it gains from torch's threads."""

    def most_rows(self, num_tokens: int) -> int:
        """Rows that a sequence of so many tokens is read in at once."""
        ...

    def open_row(self) -> Row:
        """An empty cache for one sequence."""
        ...

    def feature(
        self, states: Float[Tensor, "rows boundaries hidden"]
    ) -> Float[Tensor, "rows width"]:
        """What `fc` makes of the target's states."""
        ...

    def run(
        self, spans: Sequence[Span], feature: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Append rows to their sequences; what stands before the final norm.

        Args:
            spans: Of each sequence once.
            feature: Of all their rows, one after another.
        """
        ...

    def finish(
        self, stream: Float[Tensor, "rows width"]
    ) -> tuple[Float[Tensor, "rows target_vocab"], Float[Tensor, "rows width"]]:
        """Logits of the target's ids behind some rows, and the next step's features.

        Args:
            stream: What `run` gave for them.

        Returns:
            Ids that the head does not draft have -inf.
        """
        ...
