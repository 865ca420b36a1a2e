"""What a user asks of one generation: how to sample and when to stop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.param_values import OWN_DEMANDS, plain_value
from draftsmith.core.structured import StructuredOutputs
from draftsmith.core.values import FrozenDict, is_moderate, require
from draftsmith.errors import InvalidRequestError

__all__ = ["DEFAULT_MAX_TOKENS", "SamplingParams"]

DEFAULT_MAX_TOKENS = 256
"""The longest output where nothing else is asked and the context has room."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to sample and when to stop; the names are those of vLLM, `transformers` and OpenAI.

    Order of the transform: structured outputs, bias and bans, penalties, repetition bans (n-grams
    and bad words), minimum length, forced and suppressed ids, temperature, top-k, top-p, min-p.
    Cut-offs and the argmax break ties by the lowest id. Every field is honoured exactly under
    speculation: whatever looks at the tokens before a position sees, at each drafted one, the
    prefix that holds if the drafts before it are kept. The one field that is there to be inexact is
    `lossy_lenience`.

    Where a field says "None is the model's", it takes what the model's `generation_config.json`
    asks, or else does nothing.

    Example:
        >>> SamplingParams(temperature=0.8, top_p=0.95, seed=7).verifier_name
        'coupled'
    """

    temperature: float = 0.0
    """0 is greedy decoding."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 (or -1) keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens with at least this mass."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest one."""
    repetition_penalty: float | None = None
    """Divides (multiplies) positive (negative) logits of tokens in the prompt or the output; 1 does
    nothing, None is the model's."""
    encoder_repetition_penalty: float | None = None
    """Multiplies (divides) positive (negative) logits of tokens in the source (the prompt, if there
    is no encoder); None is the model's."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time that it occurs in the output."""
    no_repeat_ngram_size: int | None = None
    """No n-gram of this size occurs twice, the prompt included; 0 allows, None is the model's."""
    encoder_no_repeat_ngram_size: int | None = None
    """No n-gram of this size of the source (the prompt, if there is no encoder) occurs in the
    output; 0 allows, None is the model's."""
    logit_bias: Mapping[int, float] = field(default_factory=lambda: FrozenDict())
    """Added to the logits of these ids."""
    sequence_bias: Mapping[tuple[int, ...], float] | None = None
    """Token sequences to what is added to the logit of the last token, where the others stand
    before it; None is the model's."""
    banned_token_ids: tuple[int, ...] = ()
    """Ids that never occur."""
    suppress_token_ids: tuple[int, ...] | None = None
    """Further ids that never occur; None is the model's, `()` none."""
    begin_suppress_token_ids: tuple[int, ...] | None = None
    """Ids that the output does not begin with (behind a forced beginning); None is the model's."""
    bad_words: Sequence[str | Sequence[int]] | None = None
    """Strings or token sequences that never occur: the last token of one is banned where the others
    stand before it. A string counts as the tokenizer cuts it, with and without a space before;
    None is the model's."""
    allowed_token_ids: tuple[int, ...] | None = None
    """The only ids that may occur; None allows all."""
    forced_bos_token_id: int | None = None
    """An encoder-decoder's first output token; -1 forces none, None is the model's."""
    forced_eos_token_id: int | tuple[int, ...] | None = None
    """The token, or one of several, at the last place that `max_tokens` leaves; -1 forces none,
    None is the model's."""
    exponential_decay_length_penalty: tuple[int, float] | None = None
    """(start, factor): with k tokens more than `start`, |logit| (factor^k - 1) is added to that of
    the model's end-of-sequence ids; a factor of 1 does nothing, None is the model's."""
    min_tokens: int | None = None
    """End-of-sequence and stop tokens are banned before this many tokens; None is the model's."""
    max_tokens: int | None = None
    """The longest output; None is 256, or what the model's context leaves."""
    stop: str | Sequence[str] | None = None
    """A string or several that end the output; they are cut off the text. None is the model's."""
    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end the output, beside the model's end-of-sequence ids."""
    ignore_eos: bool = False
    """Go on past the model's own end-of-sequence ids."""
    structured_outputs: StructuredOutputs | Mapping[str, Any] | None = None
    """The form that the text must have: a JSON schema, a regular expression, a grammar."""
    n: int = 1
    """Samples of each prompt."""
    seed: int | None = None
    """Fixes the text, whatever the draft, gamma and batch; None draws a fresh one."""
    logprobs: int | None = None
    """Report the log-probability of each token, and of this many likeliest beside it."""
    verifier: str | None = None
    """`rejection`, `block` or `coupled`; None takes `coupled` with a seed, `block` without."""
    draft_temperature: float | None = None
    """The draft's own temperature; None is the target's. The text's law does not depend on it."""
    draft_top_k: int | None = None
    """The draft's own top-k; None is the target's."""
    draft_top_p: float | None = None
    """The draft's own top-p; None is the target's."""
    lossy_lenience: float = 1.0
    """Below 1, drafts are kept more often and the text's law is NOT the target's any more: no token
    gets more than 1 / lossy_lenience times its probability. Takes the `rejection` verifier."""

    def __post_init__(self) -> None:
        """Check every field once, and keep it as a value that nobody can change.

        Raises:
            InvalidRequestError: If a value is of another type or out of its range.
        """
        for item in fields(self):
            object.__setattr__(self, item.name, plain_value(item.name, getattr(self, item.name)))
        _check_sampling(self)
        _check_drafting(self)
        _check_token_sets(self)
        _check_length(self)
        object.__setattr__(self, "top_k", max(self.top_k, 0))

    @classmethod
    def from_options(cls, **options: Any) -> "SamplingParams":  # noqa: ANN401 - any field's type
        """Build from loose options, naming the unknown one.

        Args:
            **options: Fields of this class; a list stands for a tuple.

        Returns:
            The parameters.

        Raises:
            InvalidRequestError: If an option is unknown or out of range.
        """
        known = {item.name for item in fields(cls)}
        for name in options:
            if name not in known:
                raise InvalidRequestError(
                    f"unknown sampling option {name!r}: use {', '.join(sorted(known))}"
                )
        return cls(**{name: plain_value(name, value) for name, value in options.items()})

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, also where it is one string."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def longest_output(self) -> int:
        """`max_tokens`, or its default."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def is_greedy(self) -> bool:
        """Whether every law is a point mass."""
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether the law depends on how often tokens came before."""
        return (
            self.repetition_penalty not in (None, 1)
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def verifier_name(self) -> str:
        """The verifier that this request uses."""
        if self.verifier is not None:
            return self.verifier
        if self.lossy_lenience < 1:
            return "rejection"
        # For point masses all verifiers give one verdict; `coupled` gets there without the laws.
        return "coupled" if self.seed is not None or self.is_greedy else "block"

    def over(self, demands: Demands = NO_DEMANDS) -> Demands:
        """What holds for a text: the model's demands, with this request's in their place.

        Strings in `bad_words` count from when a tokenizer has made ids of them.

        Args:
            demands: The model's.

        Returns:
            What the text is held to.

        Example:
            >>> from draftsmith.core.demands import Demands
            >>> SamplingParams(min_tokens=2).over(Demands(no_repeat_ngram_size=3)).min_tokens
            2
        """
        own = {name: getattr(self, name) for name in OWN_DEMANDS}
        asked = {name: value for name, value in own.items() if value is not None}
        if "min_tokens" in asked:
            asked["min_length"] = 0
        if asked.get("forced_bos_token_id") == -1:
            asked["forced_bos_token_id"] = None
        if "forced_eos_token_id" in asked:
            asked["forced_eos_token_id"] = _as_forced(asked["forced_eos_token_id"])
        if "bad_words" in asked:
            words = asked["bad_words"]
            asked["bad_words"] = tuple(word for word in words if not isinstance(word, str))
        if self.stop is not None:
            asked["stop"] = self.stop_strings
        return replace(demands, **asked) if asked else demands

    def for_draft(self) -> "SamplingParams":
        """The same with the draft's own settings in the place of the target's.

        Returns:
            What the draft is sampled with.

        Example:
            >>> SamplingParams(temperature=0.8, draft_temperature=0.6).for_draft().temperature
            0.6
        """
        own = {name: getattr(self, f"draft_{name}") for name in ("temperature", "top_k", "top_p")}
        return replace(self, **{name: value for name, value in own.items() if value is not None})


def _as_forced(value: int | tuple[int, ...]) -> tuple[int, ...]:
    ids = (value,) if isinstance(value, int) else value
    return tuple(token for token in ids if token >= 0)


# --- ranges -----------------------------------------------------------------------------------


def _check_sampling(params: SamplingParams) -> None:
    finite = math.isfinite
    temperature = params.temperature
    require(finite(temperature) and temperature >= 0, "temperature", "0 or more", temperature)
    _check_divisor("temperature", temperature)
    require(params.top_k >= -1, "top_k", "0 (all) or more", params.top_k)
    require(0 < params.top_p <= 1, "top_p", "above 0 and at most 1", params.top_p)
    require(0 <= params.min_p <= 1, "min_p", "between 0 and 1", params.min_p)
    for name in ("repetition_penalty", "encoder_repetition_penalty"):
        penalty = getattr(params, name)
        require(penalty is None or (finite(penalty) and penalty > 0), name, "above 0", penalty)
        is_fit = penalty is None or is_moderate(penalty, 1 / penalty)
        require(is_fit, name, "between 1e-30 and 1e30", penalty)
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = getattr(params, name)
        require(finite(penalty), name, "finite", penalty)
        require(is_moderate(penalty), name, "between -1e30 and 1e30", penalty)
    is_seed = params.seed is None or 0 <= params.seed < 2**64
    require(is_seed, "seed", "between 0 and 2**64 - 1", params.seed)


def _check_divisor(name: str, temperature: float | None) -> None:
    """In float32 a smaller one is 0, and a larger one infinite: their laws are NaN."""
    is_fit = not temperature or is_moderate(temperature, 1 / temperature)
    require(is_fit, name, "0, or between 1e-30 and 1e30", temperature)


def _check_drafting(params: SamplingParams) -> None:
    temperature = params.draft_temperature
    is_hot = temperature is None or (math.isfinite(temperature) and temperature >= 0)
    require(is_hot, "draft_temperature", "0 or more", temperature)
    _check_divisor("draft_temperature", temperature)
    top_k, top_p = params.draft_top_k, params.draft_top_p
    require(top_k is None or top_k >= -1, "draft_top_k", "0 (all) or more", top_k)
    require(top_p is None or 0 < top_p <= 1, "draft_top_p", "above 0 and at most 1", top_p)
    lenience = params.lossy_lenience
    require(0 < lenience <= 1, "lossy_lenience", "above 0 and at most 1 (exact)", lenience)
    if lenience < 1 and params.verifier not in (None, "rejection"):
        raise InvalidRequestError(
            f"lossy_lenience changes the rejection verifier only: drop verifier={params.verifier!r}"
        )


def _check_token_sets(params: SamplingParams) -> None:
    for token, bias in params.logit_bias.items():
        require(token >= 0, "logit_bias", "keyed by token ids", token)
        require(math.isfinite(bias), "logit_bias", "finite (use banned_token_ids)", bias)
        require(is_moderate(bias), "logit_bias", "between -1e30 and 1e30", bias)
    for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
        size = getattr(params, name)
        require(size is None or size >= 0, name, "0 (none) or more", size)
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        token = getattr(params, name)
        is_id = not isinstance(token, int) or token >= -1
        require(is_id, name, "a token id, or -1 for none", token)
    allowed = params.allowed_token_ids
    if allowed is not None:
        left = set(allowed) - set(params.banned_token_ids)
        require(bool(left), "allowed_token_ids", "non-empty after the bans", allowed)


def _check_length(params: SamplingParams) -> None:
    require(params.longest_output >= 1, "max_tokens", "1 or more", params.max_tokens)
    least = params.min_tokens or 0
    longest = params.longest_output
    rule = f"between 0 and max_tokens ({longest})"
    require(0 <= least <= longest, "min_tokens", rule, params.min_tokens)
    if not all(params.stop_strings):
        raise InvalidRequestError(
            f"stop must be made of non-empty strings, got {params.stop!r}: leave the empty one out"
        )
    require(params.n >= 1, "n", "1 or more", params.n)
    is_count = params.logprobs is None or 0 <= params.logprobs <= 100
    require(is_count, "logprobs", "between 0 and 100", params.logprobs)
