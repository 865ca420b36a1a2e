"""What is compared: arms, and the cells in which they meet plain decoding."""

from collections.abc import Sequence
from dataclasses import dataclass

from draftsmith.core.gamma import Gamma, check_branches, check_gamma
from draftsmith.errors import InvalidRequestError

__all__ = ["PLAIN", "Arm", "Cell", "arm_name", "make_arms"]


@dataclass(frozen=True)
class Arm:
    """One way to decode."""

    draft: str | None
    """A drafter's reference; None decodes plainly."""
    gamma: Gamma
    branches: int = 1
    """Guesses for a position: 1 drafts chains, more trees of gamma tokens."""

    @property
    def name(self) -> str:
        """Such as `prompt-lookup, gamma 4`, or `a-head, gamma 4, 2 branches`."""
        if self.draft is None:
            return "plain"
        return arm_name(self.draft, self.gamma, self.branches)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is drafted."""
        return self.draft is None


PLAIN = Arm(None, 0)
"""What everything is measured against."""


@dataclass(frozen=True)
class Cell:
    """What all arms of one comparison have in common."""

    workload: str
    temperature: float
    batch_size: int

    @property
    def name(self) -> str:
        """Such as `chat, temperature 0.8, batch 4`."""
        return f"{self.workload}, temperature {self.temperature:g}, batch {self.batch_size}"


def arm_name(draft: str, gamma: Gamma, branches: int) -> str:
    """A draft with what it is asked for; branches are named where there are some."""
    name = f"{draft}, gamma {gamma}"
    return name if branches == 1 else f"{name}, {branches} branches"


def make_arms(
    drafts: Sequence[str], gammas: Sequence[Gamma], branches: Sequence[int] = (1,)
) -> list[Arm]:
    """Plain decoding, then every draft with every gamma and number of branches, each once.

    Raises:
        InvalidRequestError: If a gamma or a number of branches is out of range, or nothing is left
            to compare.
    """
    arms = [PLAIN]
    widths = [check_branches(width) for width in dict.fromkeys(branches)]
    for draft in dict.fromkeys(drafts):
        for width in widths:
            arms += [Arm(draft, check_gamma(gamma), width) for gamma in dict.fromkeys(gammas)]
    # Gamma 0 is plain decoding, which is always there.
    arms = [arm for arm in arms if arm.is_plain or arm.gamma != 0]
    if len(arms) == 1:
        raise InvalidRequestError("nothing to compare: give a --draft, and a --gamma above 0")
    return arms
