"""What is compared: arms, and the cells in which they meet plain decoding."""

from collections.abc import Sequence
from dataclasses import dataclass

from draftsmith.core.gamma import Gamma, check_gamma
from draftsmith.errors import InvalidRequestError

__all__ = ["PLAIN", "Arm", "Cell", "make_arms"]


@dataclass(frozen=True)
class Arm:
    """One way to decode."""

    draft: str | None
    """A drafter's reference; None decodes plainly."""
    gamma: Gamma

    @property
    def name(self) -> str:
        """Such as `prompt-lookup, gamma 4`."""
        return "plain" if self.is_plain else f"{self.draft}, gamma {self.gamma}"

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


def make_arms(drafts: Sequence[str], gammas: Sequence[Gamma]) -> list[Arm]:
    """Plain decoding, then every draft with every gamma; what is asked for twice is run once.

    Raises:
        InvalidRequestError: If a gamma is out of range, or nothing is left to compare.
    """
    arms = [PLAIN]
    for draft in dict.fromkeys(drafts):
        arms += [Arm(draft, check_gamma(gamma)) for gamma in dict.fromkeys(gammas)]
    # Gamma 0 is plain decoding, which is always there.
    arms = [arm for arm in arms if arm.is_plain or arm.gamma != 0]
    if len(arms) == 1:
        raise InvalidRequestError("nothing to compare: give a --draft, and a --gamma above 0")
    return arms
