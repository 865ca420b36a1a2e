"""What a training is told, checked at birth."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.values import check_number, check_whole, require
from draftsmith.errors import InvalidRequestError

__all__ = ["HeadKind", "Precision", "TrainOptions"]

HeadKind = Literal["eagle3", "block"]
"""Of heads that are trained: EAGLE-3, which drafts step by step, and one that drafts a block."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainOptions:
    """How a head is trained.

    Example:
        >>> TrainOptions(num_tokens=50_000).num_steps
        3
    """

    kind: HeadKind = "eagle3"
    num_tokens: int = 1_000_000
    """Of text that the target writes."""
    max_length: int = 512
    """Tokens of one text, its prompt included."""
    temperature: float = 0.8
    """At which the target writes, and at which acceptance is foretold beside temperature 0."""
    greedy_share: float = 0.0
    """Of the texts, those that it writes at temperature 0."""
    vocab_size: int = 8192
    """Ids that the head drafts: the most frequent of the text; 0 is all of the target's."""
    num_layers: int = 1
    num_steps: int = 3
    """Tokens of a draft that it practises: steps from every position, or a block's."""
    markov_rank: int = 0
    """Of a block's term that depends on the token drawn before (DSpark); 0 has none (DFlash)."""
    batch_tokens: int = 2048
    learning_rate: float = 6e-4
    """At its highest; it rises for a fiftieth of the steps, and falls as a cosine."""
    max_epochs: int = 6
    patience: int = 3
    """Trials on held-out text without a gain after which the training ends."""
    held_out: float = 0.05
    """Share of the texts that is never trained on."""
    trials_per_epoch: int = 4
    seed: int = 0
    precision: Precision = "float32"
    """Of the products of a step. Where the processor multiplies bfloat16 itself, it takes 0.6 of
    the time."""

    def __post_init__(self) -> None:
        for name, least in (
            ("num_tokens", 1),
            ("max_length", 16),
            ("vocab_size", 0),
            ("num_layers", 1),
            ("num_steps", 1),
            ("markov_rank", 0),
            ("batch_tokens", 16),
            ("max_epochs", 1),
            ("patience", 1),
            ("trials_per_epoch", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            require(check_whole(name, value) >= least, name, f"{least} or more", value)
        for name, kind in (("precision", Precision), ("kind", HeadKind)):
            known = get_args(kind)
            require(getattr(self, name) in known, name, " or ".join(known), getattr(self, name))
        if self.kind == "block":
            require(
                self.num_steps <= MAX_GAMMA, "num_steps", f"{MAX_GAMMA} at most", self.num_steps
            )
        if self.markov_rank and self.kind != "block":
            raise InvalidRequestError(
                f"markov_rank={self.markov_rank} is of a block, and {self.kind} has none: "
                "leave it out, or train the kind block"
            )
        for name, least, most in (
            ("temperature", 0.0, 10.0),
            ("greedy_share", 0.0, 1.0),
            ("learning_rate", 1e-8, 1.0),
            ("held_out", 0.001, 0.5),
        ):
            value = getattr(self, name)
            rule = f"between {least:g} and {most:g}"
            require(least <= check_number(name, value) <= most, name, rule, value)

    def temperature_of(self, number: int) -> float:
        """At which the target writes a text, by its number: greedy ones lie evenly among others.

        Args:
            number: From 0.
        """
        share = self.greedy_share
        return 0.0 if int((number + 1) * share) > int(number * share) else self.temperature

    @property
    def of_texts(self) -> dict[str, object]:
        """Those that the texts depend on."""
        names = ("max_length", "temperature", "greedy_share", "seed")
        return {name: value for name, value in asdict(self).items() if name in names}
