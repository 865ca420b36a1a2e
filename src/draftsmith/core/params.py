"""What a user asks of one generation: how to sample and when to stop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from draftsmith.errors import InvalidRequestError

__all__ = ["MAX_GAMMA", "Gamma", "SamplingParams", "check_gamma"]

MAX_GAMMA = 32
"""The longest draft of one round."""

Gamma: TypeAlias = int | Literal["auto"]
"""Drafted tokens per round; "auto" leaves it to the measured costs and acceptance."""

_VERIFIER_NAMES = ("rejection", "block", "coupled")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to sample and when to stop; the names are those of vLLM and the OpenAI API.

    Order of the transform: bias and bans, penalties, temperature, top-k, top-p, min-p. Cut-offs
    and the argmax break ties by the lowest id. Every field is honoured exactly under speculation:
    penalties and minimum lengths see, at each drafted position, the prefix that holds if the
    drafts before it are kept. The one field that is there to be inexact is `lossy_lenience`.

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
    repetition_penalty: float = 1.0
    """Divides (multiplies) positive (negative) logits of tokens in the prompt or the output."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time that it occurs in the output."""
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """Added to the logits of these ids."""
    banned_token_ids: tuple[int, ...] = ()
    """Ids that never occur."""
    allowed_token_ids: tuple[int, ...] | None = None
    """The only ids that may occur; None allows all."""
    min_tokens: int = 0
    """End-of-sequence and stop tokens are banned before this many tokens."""
    max_tokens: int = 256
    """The longest output."""
    stop: str | Sequence[str] = ()
    """A string or several that end the output; they are cut off the text."""
    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end the output, beside the model's end-of-sequence ids."""
    ignore_eos: bool = False
    """Go on past the model's own end-of-sequence ids."""
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
        """Check every field once.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        _check_sampling(self)
        _check_drafting(self)
        _check_token_sets(self)
        _check_length(self)
        object.__setattr__(self, "top_k", max(self.top_k, 0))
        for name in ("banned_token_ids", "stop_token_ids"):
            # A caller's list would stay the caller's to change.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "logit_bias", MappingProxyType(dict(self.logit_bias)))

    @classmethod
    def from_options(cls, **options: Any) -> "SamplingParams":  # noqa: ANN401 - any field's type
        """Build from loose options, naming the unknown one.

        Raises:
            InvalidRequestError: If an option is unknown or out of range.
        """
        known = {item.name for item in fields(cls)}
        for name in options:
            if name not in known:
                raise InvalidRequestError(
                    f"unknown sampling option {name!r}: use {', '.join(sorted(known))}"
                )
        return cls(**options)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, also where it is one string."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def is_greedy(self) -> bool:
        """Whether every law is a point mass."""
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether the law depends on which tokens came before."""
        return (
            self.repetition_penalty != 1
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

    def for_draft(self) -> "SamplingParams":
        """The same with the draft's own settings in the place of the target's.

        Example:
            >>> SamplingParams(temperature=0.8, draft_temperature=0.6).for_draft().temperature
            0.6
        """
        own = {name: getattr(self, f"draft_{name}") for name in ("temperature", "top_k", "top_p")}
        return replace(self, **{name: value for name, value in own.items() if value is not None})


def check_gamma(gamma: int | str) -> Gamma:
    """Return `gamma` if it is a legal draft length.

    Raises:
        InvalidRequestError: If it is not an integer from 0 to `MAX_GAMMA`, nor "auto".
    """
    if gamma == "auto":
        return "auto"
    if isinstance(gamma, str) or not 0 <= gamma <= MAX_GAMMA or gamma % 1:
        raise InvalidRequestError(
            f"gamma must be between 0 and {MAX_GAMMA}, or auto, got {gamma!r}"
        )
    return gamma


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise InvalidRequestError(f"{name} must be {rule}, got {value!r}")


def _check_sampling(params: SamplingParams) -> None:
    finite = math.isfinite
    temperature = params.temperature
    _require(finite(temperature) and temperature >= 0, "temperature", "0 or more", temperature)
    _require(params.top_k >= -1, "top_k", "0 (all) or more", params.top_k)
    _require(0 < params.top_p <= 1, "top_p", "above 0 and at most 1", params.top_p)
    _require(0 <= params.min_p <= 1, "min_p", "between 0 and 1", params.min_p)
    penalty = params.repetition_penalty
    _require(finite(penalty) and penalty > 0, "repetition_penalty", "above 0", penalty)
    for name in ("presence_penalty", "frequency_penalty"):
        _require(finite(getattr(params, name)), name, "finite", getattr(params, name))
    verifiers = f"one of {', '.join(_VERIFIER_NAMES)}"
    is_known = params.verifier is None or params.verifier in _VERIFIER_NAMES
    _require(is_known, "verifier", verifiers, params.verifier)
    is_seed = params.seed is None or 0 <= params.seed < 2**64
    _require(is_seed, "seed", "between 0 and 2**64 - 1", params.seed)


def _check_drafting(params: SamplingParams) -> None:
    temperature = params.draft_temperature
    is_hot = temperature is None or (math.isfinite(temperature) and temperature >= 0)
    _require(is_hot, "draft_temperature", "0 or more", temperature)
    top_k, top_p = params.draft_top_k, params.draft_top_p
    _require(top_k is None or top_k >= -1, "draft_top_k", "0 (all) or more", top_k)
    _require(top_p is None or 0 < top_p <= 1, "draft_top_p", "above 0 and at most 1", top_p)
    lenience = params.lossy_lenience
    _require(0 < lenience <= 1, "lossy_lenience", "above 0 and at most 1 (exact)", lenience)
    if lenience < 1 and params.verifier not in (None, "rejection"):
        raise InvalidRequestError(
            f"lossy_lenience changes the rejection verifier only: drop verifier={params.verifier!r}"
        )


def _check_token_sets(params: SamplingParams) -> None:
    for token, bias in params.logit_bias.items():
        _require(token >= 0, "logit_bias", "keyed by token ids", token)
        _require(math.isfinite(bias), "logit_bias", "finite (use banned_token_ids)", bias)
    allowed = params.allowed_token_ids
    for name in ("banned_token_ids", "stop_token_ids", "allowed_token_ids"):
        ids = getattr(params, name) or ()
        _require(all(token >= 0 for token in ids), name, "token ids", ids)
    if allowed is not None:
        left = set(allowed) - set(params.banned_token_ids)
        _require(bool(left), "allowed_token_ids", "non-empty after the bans", allowed)


def _check_length(params: SamplingParams) -> None:
    _require(params.max_tokens >= 1, "max_tokens", "1 or more", params.max_tokens)
    in_range = 0 <= params.min_tokens <= params.max_tokens
    _require(in_range, "min_tokens", "between 0 and max_tokens", params.min_tokens)
    _require(all(params.stop_strings), "stop", "made of non-empty strings", params.stop)
    _require(params.n >= 1, "n", "1 or more", params.n)
    is_count = params.logprobs is None or 0 <= params.logprobs <= 100
    _require(is_count, "logprobs", "between 0 and 100", params.logprobs)
