"""How to sample and when to stop, as options."""

import secrets
from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from draftsmith.cli.options import (
    SAMPLING,
    STOPPING,
    Flag,
    Ids,
    MaxTokens,
    Real,
    Seed,
    Strings,
    Temperature,
    VerifierName,
    Whole,
)
from draftsmith.core.params import SamplingParams
from draftsmith.errors import InvalidRequestError

__all__ = ["DEFAULT_SAMPLING", "SamplingOptions", "seeded"]


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample and when to stop.

    Parameters
    ----------
    temperature
        0 is greedy decoding.
    top_k
        Keep this many of the likeliest tokens; 0 keeps all.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1 keeps all.
    min_p
        Drop tokens less likely than this share of the likeliest; 0 drops none.
    repetition_penalty
        Above 1 discourages tokens of the prompt and the output; by default the model's own.
    presence_penalty
        Subtracted from the logits of tokens in the output.
    frequency_penalty
        Subtracted once for each time that a token occurs in the output.
    logit_bias
        ID=VALUE, added to the logit of a token id; may be repeated.
    ban_token
        An id that never occurs; may be repeated.
    allow_token
        If given, only these ids may occur; may be repeated.
    seed
        Fixes the text, with speculation on or off; without one, each run draws its own.
    verifier
        How drafts are checked; by default coupled with a seed or at temperature 0, else block.
    draft_temperature
        The draft's own temperature; by default the target's. The text stays exact.
    draft_top_k
        The draft's own top-k; by default the target's.
    draft_top_p
        The draft's own top-p; by default the target's.
    lossy_lenience
        Below 1, keeps drafts that the exact check rejects, so that the text is NOT the target's
        any more; no token gets more than 1/this times its probability.
    max_tokens
        The longest output; by default 256, and in a chat 1024.
    min_tokens
        No end before this many tokens; by default the model's own.
    stop
        A string that ends the output, and is cut off; may be repeated.
    stop_token
        An id that ends the output; may be repeated.
    ignore_eos
        Go on past the model's end-of-sequence ids.
    """

    temperature: Temperature = 0.0
    top_k: Whole = 0
    top_p: Real = 1.0
    min_p: Real = 0.0
    repetition_penalty: Annotated[Real | None, Parameter(alias="--repeat-penalty")] = None
    presence_penalty: Real = 0.0
    frequency_penalty: Real = 0.0
    logit_bias: Strings = ()
    ban_token: Annotated[Ids, Parameter(alias="--banned-token-ids")] = ()
    allow_token: Annotated[Ids, Parameter(alias="--allowed-token-ids")] = ()
    seed: Seed | None = None
    verifier: VerifierName | None = None
    draft_temperature: Real | None = None
    draft_top_k: Whole | None = None
    draft_top_p: Real | None = None
    lossy_lenience: Real = 1.0
    max_tokens: MaxTokens | None = None
    min_tokens: Annotated[Whole | None, Parameter(group=STOPPING)] = None
    stop: Annotated[Strings, Parameter(group=STOPPING)] = ()
    stop_token: Annotated[Ids, Parameter(alias="--stop-token-ids", group=STOPPING)] = ()
    ignore_eos: Annotated[Flag, Parameter(group=STOPPING)] = False

    def params(
        self, *, max_tokens: int | None = None, n: int = 1, logprobs: int | None = None
    ) -> SamplingParams:
        """The same as `SamplingParams`.

        Args:
            max_tokens: The command's default; None is that of `SamplingParams`.
            n: Samples to draw.
            logprobs: Alternatives to report; None reports no log-probabilities.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_biases(self.logit_bias),
            banned_token_ids=self.ban_token,
            allowed_token_ids=self.allow_token or None,
            max_tokens=max_tokens if self.max_tokens is None else self.max_tokens,
            min_tokens=self.min_tokens,
            stop=self.stop or None,
            stop_token_ids=self.stop_token,
            ignore_eos=self.ignore_eos,
            seed=self.seed,
            verifier=self.verifier,
            draft_temperature=self.draft_temperature,
            draft_top_k=self.draft_top_k,
            draft_top_p=self.draft_top_p,
            lossy_lenience=self.lossy_lenience,
            n=n,
            logprobs=logprobs,
        )


DEFAULT_SAMPLING = SamplingOptions()


def seeded(params: SamplingParams) -> SamplingParams:
    """The same with a seed that can be told: one of its own where none was given.

    The verifier is fixed first, since a seed by itself would choose another.
    """
    if params.seed is not None:
        return params
    # 53 bits: a reader of our JSON may keep its numbers as doubles.
    return replace(params, seed=secrets.randbits(53), verifier=params.verifier_name)


def _biases(pairs: tuple[str, ...]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            token, bias = int(name), float(value)
        except ValueError as error:
            raise InvalidRequestError(
                f"--logit-bias must be ID=VALUE, such as 42=-1.5, got {pair!r}"
            ) from error
        if token in biases:
            raise InvalidRequestError(
                f"--logit-bias gives id {token} two values, {biases[token]:g} and {bias:g}: "
                "give one"
            )
        biases[token] = bias
    return biases
