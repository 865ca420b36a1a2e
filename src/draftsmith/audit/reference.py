"""The target decoded plainly here, beside what another system made of the same weights."""

from typing import NamedTuple

from draftsmith.audit.client import Answer
from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["Compared", "Parting", "Reference"]

_MOST_ERROR = 0.5
"""A log-probability that two systems see further apart is no rounding: 8-bit activations move it
by 0.1 to 0.4, other weights by more than 1."""
_NUM_KNOWN = 64
"""Of the likeliest tokens, how many are looked up by name."""


class Parting(NamedTuple):
    """Where another system's greedy text leaves the reference's."""

    prompt: int
    position: int
    """Index of the first differing token."""
    expected: str
    found: str
    margin: float
    """By how much the reference's best token beats its second, in log-probability."""
    error: float | None
    """The largest difference of the two systems' log-probabilities there; None if unknown."""

    @property
    def is_numerics(self) -> bool:
        """Whether rounding can have made the difference."""
        return self.error is not None and self.margin < self.error <= _MOST_ERROR

    def __str__(self) -> str:
        error = "unknown" if self.error is None else f"{self.error:.3g}"
        cause = "numerics" if self.is_numerics else "NOT numerics"
        return (
            f"{self.expected!r} became {self.found!r}, margin {self.margin:.3g}, log-probabilities "
            f"differ by {error}: {cause}"
        )


class Compared(NamedTuple):
    """One greedy text beside the reference's."""

    num_characters: int
    """Length of the part that both have; 0 says nothing."""
    parting: Parting | None
    """None if that part is the same."""


class Reference:
    """A target and its tokenizer.

    Args:
        engine: Without a draft.
    """

    def __init__(self, engine: Engine) -> None:
        assert engine.tokenizer is not None
        self._engine = Engine(engine.target, engine.tokenizer, gamma=0, prefix_caching=False)
        self._tokenizer: Tokenizer = engine.tokenizer
        self.name = engine.target.traits.name

    def compare(self, number: int, prompt: str, answer: Answer, max_tokens: int) -> Compared:
        """Set a text beside plain greedy decoding's.

        A text that ends where the other goes on is the same as far as it goes: systems differ in
        whether they show the token that ends a text.
        """
        params = SamplingParams(max_tokens=max_tokens, logprobs=_NUM_KNOWN)
        result = self._engine.generate(prompt, params)[0]
        if result.error is not None:
            raise DraftsmithError(f"the reference failed: {result.error}")
        ours, theirs = result.text, answer.text
        shared = min(len(ours), len(theirs))
        if ours[:shared] == theirs[:shared]:
            return Compared(shared, None)
        place = next(i for i in range(shared) if ours[i] != theirs[i])
        ids = list(result.token_ids)
        lengths = (len(self._tokenizer.decode(ids[: i + 1])) for i in range(len(ids)))
        position = next(i for i, length in enumerate(lengths) if length > place)
        top = result.completions[0].trace[position].top_logprobs
        known = {self._tokenizer.decode([one.token_id]): one.logprob for one in top}
        error = found = None
        if position < len(answer.positions):
            there = answer.positions[position]
            found = there.token
            gaps = [abs(known[name] - value) for name, value in there.top.items() if name in known]
            error = max(gaps, default=None)
        parting = Parting(
            number,
            position,
            self._tokenizer.decode([ids[position]]),
            theirs[place : place + 12] if found is None else found,
            top[0].logprob - top[1].logprob,
            error,
        )
        return Compared(shared, parting)
