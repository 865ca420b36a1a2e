"""What a training is told, checked at birth."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from draftsmith.core.values import check_number, check_whole, require

__all__ = ["Precision", "TrainOptions"]

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainOptions:
    """How a head is trained.

    Example:
        >>> TrainOptions(num_tokens=50_000).num_steps
        3
    """

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
    """Draft steps that are unrolled from every position."""
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
            ("batch_tokens", 16),
            ("max_epochs", 1),
            ("patience", 1),
            ("trials_per_epoch", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            require(check_whole(name, value) >= least, name, f"{least} or more", value)
        known = get_args(Precision)
        require(self.precision in known, "precision", " or ".join(known), self.precision)
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
