"""What a training is told, checked at birth."""

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.values import check_number, check_whole, require
from draftsmith.errors import InvalidRequestError

__all__ = ["DraftKind", "DraftSize", "Precision", "TrainOptions"]

DraftKind = Literal["eagle3", "block", "distilled"]
"""Of drafts that are trained: an EAGLE-3 head, which drafts step by step, a head that drafts a
block, and a small model of the target's own kind."""
Precision = Literal["float32", "bfloat16"]


class DraftSize(NamedTuple):
    """What of a training is its kind's own."""

    vocab_size: int
    """Ids that are drafted: the most frequent of the text; 0 is all of the target's."""
    num_layers: int
    num_steps: int
    """Tokens of a draft that it practises or, where it drafts everywhere alike, is tried at."""
    markov_rank: int
    """Of a block's term that depends on the token drawn before (DSpark); 0 has none (DFlash)."""


_USUAL: dict[DraftKind, DraftSize] = {
    "eagle3": DraftSize(vocab_size=8192, num_layers=1, num_steps=3, markov_rank=0),
    "block": DraftSize(vocab_size=8192, num_layers=1, num_steps=7, markov_rank=128),
    "distilled": DraftSize(vocab_size=0, num_layers=2, num_steps=5, markov_rank=0),
}
_ONLY = {
    ("eagle3", "markov_rank"): "is of a block, and eagle3 has none: leave it out, or train the "
    "kind block",
    ("distilled", "markov_rank"): "is of a block, and distilled has none: leave it out, or train "
    "the kind block",
    ("distilled", "vocab_size"): "is of a head, and a distilled draft has all ids: leave it out, "
    "and give --draft-vocab-size where it drafts",
}
"""Options that a kind has not, whose one value is its usual one."""


@dataclass(frozen=True)
class TrainOptions:
    """How a draft is trained.

    Example:
        >>> TrainOptions(kind="block", num_tokens=50_000).size.num_steps
        7
    """

    kind: DraftKind = "eagle3"
    num_tokens: int = 1_000_000
    """Of text that the target writes."""
    max_length: int = 512
    """Tokens of one text, its prompt included."""
    temperature: float = 0.8
    """At which the target writes, and at which acceptance is foretold beside temperature 0."""
    greedy_share: float = 0.0
    """Of the texts, those that it writes at temperature 0."""
    vocab_size: int | None = None
    """This and the next three as `DraftSize` has them; None is what is usual with the kind."""
    num_layers: int | None = None
    num_steps: int | None = None
    markov_rank: int | None = None
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
        for name, kind in (("precision", Precision), ("kind", DraftKind)):
            known = get_args(kind)
            require(getattr(self, name) in known, name, " or ".join(known), getattr(self, name))
        for name, least in (
            ("num_tokens", 1),
            ("max_length", 16),
            ("batch_tokens", 16),
            ("max_epochs", 1),
            ("patience", 1),
            ("trials_per_epoch", 1),
            ("seed", 0),
        ):
            _check_least(name, getattr(self, name), least)
        self._check_size()
        for name, least, most in (
            ("temperature", 0.0, 10.0),
            ("greedy_share", 0.0, 1.0),
            ("learning_rate", 1e-8, 1.0),
            ("held_out", 0.001, 0.5),
        ):
            value = getattr(self, name)
            rule = f"between {least:g} and {most:g}"
            require(least <= check_number(name, value) <= most, name, rule, value)

    def _check_size(self) -> None:
        """Refuse what is out of range, and what the kind has not."""
        for name, least in (
            ("vocab_size", 0),
            ("num_layers", 1),
            ("num_steps", 1),
            ("markov_rank", 0),
        ):
            value: int | None = getattr(self, name)
            if value is None:
                continue
            _check_least(name, value, least)
            why = _ONLY.get((self.kind, name))
            if why is not None and value != getattr(_USUAL[self.kind], name):
                raise InvalidRequestError(f"{name}={value} {why}")
        num_steps = self.size.num_steps
        if self.kind != "eagle3":
            require(num_steps <= MAX_GAMMA, "num_steps", f"{MAX_GAMMA} at most", num_steps)

    @property
    def size(self) -> DraftSize:
        """What is the kind's own, as it was given or is usual."""
        given = {name: getattr(self, name) for name in DraftSize._fields}
        return _USUAL[self.kind]._replace(**{n: v for n, v in given.items() if v is not None})

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

    @property
    def resolved(self) -> dict[str, object]:
        """All of them by name, with what is usual where nothing was given."""
        return asdict(self) | self.size._asdict()


def _check_least(name: str, value: object, least: int) -> None:
    require(check_whole(name, value) >= least, name, f"{least} or more", value)
