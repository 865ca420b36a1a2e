"""What is asked of a head of any kind once its files are read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype

__all__ = ["Head", "Reading", "Written"]


class Head(ABC):
    """A head with every convention resolved, and its weights, checked against them."""

    drafts_on_gpus: ClassVar[bool] = False
    """Whether its drafter also runs elsewhere than on a CPU."""

    @property
    @abstractmethod
    def boundaries(self) -> tuple[int, ...]:
        """Of the target, in the order in which the head reads them."""

    @abstractmethod
    def described(self) -> dict[str, str]:
        """Every convention as it was resolved, for people."""

    @abstractmethod
    def made(self, target: LanguageModel, name: str, dtype: Dtype, branches: int) -> Drafter:
        """The drafter that it is, untried.

        Args:
            target: What it drafts for.
            name: For messages and tables.
            dtype: Of the weights; `auto` is 8 bits on a CPU.
            branches: Guesses for each position at most.

        Raises:
            DraftsmithError: It is not for this target, or cannot draft so.
        """

    @abstractmethod
    def guesses(
        self, text: "Written", target: TargetTables, num_steps: int
    ) -> Int[Tensor, "steps rows"]:
        """The ids that it thinks likeliest, all along a text, by its plain twin.

        Args:
            text: With states at the head's boundaries.
            target: Whose tables it reads.
            num_steps: Tokens of a draft.

        Returns:
            For each row t of `text.rows(num_steps)`, of which tokens 0 to t+1 are committed and the
            states of 0 to t are known: at step s the target's id of token t+2+s, in a draft
            that the text bears out up to there. A head that guesses fewer gives fewer steps.
        """

    def readings(self, target: LanguageModel) -> Sequence["Reading"]:
        """Other ways to read the same files, the likeliest first.

        Args:
            target: What the head drafts for.
        """
        del target
        return ()


class Reading(NamedTuple):
    """Another way to read the same files."""

    head: Head
    why: str
    """What to say of it, as in "with states behind layers 1, 2, 3"."""
    place: int = 0
    """The drafted token that tells the two apart, from 0."""
    remedy: str = "correct its config.json"


class Written(NamedTuple):
    """One text of the target's, and its states."""

    tokens: Sequence[int]
    num_prompt: int
    states: Mapping[int, Float[Tensor, "tokens hidden"]]
    """By boundary; of all tokens but the last."""

    def rows(self, num_steps: int) -> range:
        """The rows at which a draft of so many tokens can be held against the text."""
        return range(self.num_prompt - 2, len(self.tokens) - 1 - num_steps)
