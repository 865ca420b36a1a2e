"""What generation returns: frozen records, whose `str` is the text."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.control.contract import Ledger

__all__ = [
    "Completion",
    "FinishReason",
    "GenerationResult",
    "Origin",
    "StreamEvent",
    "TokenTrace",
    "TopLogprob",
    "with_trace_of",
]


class FinishReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"
    """An end-of-sequence id, a stop id or a stop string."""
    LENGTH = "length"
    """`max_tokens`, or the model's context."""
    ERROR = "error"
    """This request could not be served, or could not go on; `error` says why."""
    ABORT = "abort"
    """The caller stopped."""


class Origin(StrEnum):
    """Where a token came from."""

    KEPT = "kept"
    """Drafted, and kept by the check."""
    RESIDUAL = "residual"
    """Emitted in the place of a rejected draft."""
    BONUS = "bonus"
    """Emitted after a draft that was kept whole (or empty, as in plain decoding)."""


class TopLogprob(NamedTuple):
    """A token and the log of its probability under the target, before sampling processing."""

    token_id: int
    logprob: float


class TokenTrace(NamedTuple):
    """One output token and how it came about."""

    token_id: int
    origin: Origin
    round: int
    """The round that decided it, from 0."""
    rejected: int | None
    """The drafted token whose place it took, if any."""
    logprob: float | None
    """Log-probability under the target's raw law, if asked for."""
    top_logprobs: tuple[TopLogprob, ...]
    """The likeliest tokens at this position, if asked for."""


@dataclass(frozen=True)
class Completion:
    """One sampled text.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup")
        >>> params = draftsmith.SamplingParams(temperature=1.0, seed=1, n=2, max_tokens=4)
        >>> [one.index for one in engine.generate(["a b a"], params)[0].completions]
        [0, 1]
    """

    index: int
    """Which of the request's `n` samples."""
    text: str
    token_ids: tuple[int, ...]
    """Output ids, the one that ended the text included."""
    finish_reason: FinishReason
    stop_reason: str | int | None
    """The stop string or the id that ended the text."""
    statistics: SpeculationStatistics
    trace: tuple[TokenTrace, ...]
    error: str | None = None
    ledger: Ledger | None = None
    """Time spent beside plain decoding's; with gamma "auto" only."""
    prompt_tail: tuple[int, ...] = ()
    """The last tokens before the output, which `Detokenizer` needs to read it piece by piece."""
    num_cached_tokens: int = 0
    """Tokens of the prompt that were not read, as another text's cache held them already."""
    num_guessed: int = 0
    """Drafted tokens that the drafter guessed; the others were forced by `structured_outputs`."""
    num_guesses_kept: int = 0
    """How many of those were kept."""

    def __str__(self) -> str:
        return self.text

    if not TYPE_CHECKING:  # it would say that there is any attribute

        def __getattr__(self, name: str) -> object:
            """The trace, where it was not made yet."""
            make = vars(self).get("_make_trace")
            if name != "trace" or make is None:
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            vars(self)["trace"] = made = make()
            return made


def with_trace_of(completion: Completion, make: Callable[[], tuple[TokenTrace, ...]]) -> Completion:
    """This very completion, whose `trace` is made when it is first asked for."""
    del vars(completion)["trace"]
    vars(completion)["_make_trace"] = make
    return completion


@dataclass(frozen=True)
class GenerationResult:
    """All samples of one prompt.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup")
        >>> (result,) = engine.generate(["a b a"], draftsmith.SamplingParams(max_tokens=4))
        >>> str(result) == result.text, result.statistics.num_committed
        (True, 4)
    """

    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    elapsed_s: float
    """Seconds from the first round of this prompt to its end (others may share them)."""

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """Text of the first sample."""
        return self.completions[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Output ids of the first sample."""
        return self.completions[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first sample ended."""
        return self.completions[0].finish_reason

    @property
    def error(self) -> str | None:
        """What went wrong with the first sample, if anything."""
        return self.completions[0].error

    @property
    def statistics(self) -> SpeculationStatistics:
        """Counts over all samples."""
        return sum((one.statistics for one in self.completions), SpeculationStatistics())

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompt that were not read, over all samples."""
        return sum(one.num_cached_tokens for one in self.completions)

    @property
    def ledger(self) -> Ledger | None:
        """Time spent beside plain decoding's, over all samples; None without gamma "auto"."""
        found = [one.ledger for one in self.completions if one.ledger is not None]
        return sum(found, Ledger()) if found else None

    @property
    def tokens_per_second(self) -> float:
        """Output tokens of all samples over `elapsed_s`."""
        num_tokens = sum(len(one.token_ids) for one in self.completions)
        return num_tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True)
class StreamEvent:
    """New text of one sample, as a round makes it certain.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup")
        >>> params = draftsmith.SamplingParams(max_tokens=4)
        >>> events = list(engine.stream("a b a", params))
        >>> "".join(event.text for event in events) == events[-1].result.text
        True
    """

    prompt_index: int
    sample_index: int
    text: str
    """Whole characters only; may be empty."""
    tokens: tuple[TokenTrace, ...]
    completion: Completion | None
    """The whole sample, in its last event."""
    result: GenerationResult | None
    """The whole prompt, in the last event of its last sample."""
