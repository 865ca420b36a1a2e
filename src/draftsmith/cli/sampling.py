"""How to sample and when to stop, as options."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from cyclopts import Parameter

from draftsmith.cli.form import FORM_FIELDS, form_of
from draftsmith.cli.options import (
    FORM,
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

__all__ = ["DEFAULT_SAMPLING", "SamplingOptions", "refuse_cut_offs", "seeded"]

_PARAMETERS = {
    "ban_token": "banned_token_ids",
    "allow_token": "allowed_token_ids",
    "stop_token": "stop_token_ids",
    "suppress_token": "suppress_token_ids",
    "begin_suppress_token": "begin_suppress_token_ids",
    "bad_word": "bad_words",
    "forced_bos_token": "forced_bos_token_id",
    "forced_eos_token": "forced_eos_token_id",
}
"""Options whose parameter has another name."""


_NO_CUT_OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample and when to stop.

    Parameters
    ----------
    temperature
        0, the default, is greedy decoding.
    top_k
        Keep this many of the likeliest tokens; 0, the default, keeps all.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1, the default, keeps
        all.
    min_p
        Drop tokens less likely than this share of the likeliest; 0, the default, drops none.
    repetition_penalty
        Above 1 discourages tokens of the prompt and the output; by default the model's own.
    presence_penalty
        Subtracted from the logits of tokens in the output.
    frequency_penalty
        Subtracted once for each time that a token occurs in the output.
    encoder_repetition_penalty
        Above 1 encourages tokens of the source, or of the prompt where there is no encoder; by
        default the model's own.
    no_repeat_ngram_size
        No n-gram of this size occurs twice, the prompt included; 0 allows; by default the model's
        own.
    encoder_no_repeat_ngram_size
        No n-gram of this size of the source, or of the prompt where there is no encoder, occurs in
        the output; 0 allows; by default the model's own.
    logit_bias
        ID=VALUE, added to the logit of a token id; may be repeated.
    sequence_bias
        ID,ID,...=VALUE, added to the logit of the last id where the others stand before it; may be
        repeated; by default the model's own.
    ban_token
        An id that never occurs; may be repeated.
    suppress_token
        The same, in the place of the model's own list; may be repeated.
    begin_suppress_token
        An id that the output does not begin with, in the place of the model's own list; may be
        repeated.
    bad_word
        A text that never occurs, with and without a space before it, in the place of the model's
        own list; may be repeated.
    forced_bos_token
        An encoder-decoder's first output id; -1 forces none; by default the model's own.
    forced_eos_token
        The id at the last place that --max-tokens leaves; -1 forces none; may be repeated, for one
        of several; by default the model's own.
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
    json_schema
        A JSON schema that the text must fit: a file, or the schema itself, which begins with a
        brace.
    json_object
        The text must be a JSON object, whatever is in it.
    disable_any_whitespace
        With --json-schema and --json-object: no blanks between the parts, so that more of the text
        is known beforehand; by default the model may put any.
    regex
        A regular expression that the whole text must match.
    choice
        A text that the whole text may be; may be repeated.
    grammar
        A context-free grammar in Lark's notation that the text must follow: a file, or the grammar
        itself, with its rule "start:".
    """

    temperature: Temperature | None = None
    top_k: Whole | None = None
    top_p: Real | None = None
    min_p: Real | None = None
    repetition_penalty: Annotated[Real | None, Parameter(alias="--repeat-penalty")] = None
    presence_penalty: Real | None = None
    frequency_penalty: Real | None = None
    encoder_repetition_penalty: Real | None = None
    no_repeat_ngram_size: Whole | None = None
    encoder_no_repeat_ngram_size: Whole | None = None
    logit_bias: Strings = ()
    sequence_bias: Strings = ()
    ban_token: Annotated[Ids, Parameter(alias="--banned-token-ids")] = ()
    suppress_token: Annotated[Ids, Parameter(alias="--suppress-token-ids")] = ()
    begin_suppress_token: Annotated[Ids, Parameter(alias="--begin-suppress-token-ids")] = ()
    bad_word: Annotated[Strings, Parameter(alias="--bad-words")] = ()
    forced_bos_token: Annotated[Whole | None, Parameter(alias="--forced-bos-token-id")] = None
    forced_eos_token: Annotated[Ids, Parameter(alias="--forced-eos-token-id")] = ()
    allow_token: Annotated[Ids, Parameter(alias="--allowed-token-ids")] = ()
    seed: Seed | None = None
    verifier: VerifierName | None = None
    draft_temperature: Real | None = None
    draft_top_k: Whole | None = None
    draft_top_p: Real | None = None
    lossy_lenience: Real | None = None
    max_tokens: MaxTokens | None = None
    min_tokens: Annotated[Whole | None, Parameter(group=STOPPING)] = None
    stop: Annotated[Strings, Parameter(group=STOPPING)] = ()
    stop_token: Annotated[Ids, Parameter(alias="--stop-token-ids", group=STOPPING)] = ()
    ignore_eos: Annotated[Flag, Parameter(group=STOPPING)] = False
    json_schema: Annotated[
        str | None, Parameter(alias=["--json-schema-file", "-j", "-jf"], group=FORM)
    ] = None
    json_object: Annotated[Flag, Parameter(group=FORM)] = False
    disable_any_whitespace: Annotated[Flag, Parameter(group=FORM)] = False
    regex: Annotated[str | None, Parameter(group=FORM)] = None
    choice: Annotated[Strings, Parameter(group=FORM)] = ()
    grammar: Annotated[str | None, Parameter(alias="--grammar-file", group=FORM)] = None

    def params(
        self, *, max_tokens: int | None = None, n: int = 1, logprobs: int | None = None
    ) -> SamplingParams:
        """The same as `SamplingParams`; what was not asked for keeps its default there.

        Args:
            max_tokens: The command's default; None is the parameters' own.
            n: Samples to draw.
            logprobs: Alternatives to report; None reports no log-probabilities.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        asked: dict[str, Any] = {
            _PARAMETERS.get(one.name, one.name): getattr(self, one.name)
            for one in fields(self)
            if one.name not in FORM_FIELDS
        }
        asked["structured_outputs"] = form_of({name: getattr(self, name) for name in FORM_FIELDS})
        asked["logit_bias"] = {
            ids[0]: bias for ids, bias in _biases(self.logit_bias, "--logit-bias").items()
        }
        asked["sequence_bias"] = _biases(self.sequence_bias, "--sequence-bias")
        if len(self.forced_eos_token) == 1:
            asked["forced_eos_token_id"] = self.forced_eos_token[0]  # -1 is no list of ids
        if self.max_tokens is None:
            asked["max_tokens"] = max_tokens
        given = {name: value for name, value in asked.items() if value not in (None, (), {})}
        return SamplingParams(n=n, logprobs=logprobs, **given)

    def check_drawn(self, num_samples: int = 1) -> None:
        """Refuse at temperature 0 what only a draw could show; call it once ranges were checked.

        Args:
            num_samples: Of each prompt.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if num_samples > 1 and not self.temperature:
            raise InvalidRequestError(
                f"--num-samples {num_samples} are {num_samples} times one text at temperature 0"
                f"{_default(self.temperature)}: give a temperature above 0, or drop it"
            )
        # A draft with a temperature of its own takes the cut-offs too.
        if not self.draft_temperature:
            cut_offs = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
            refuse_cut_offs(self.temperature, cut_offs)


DEFAULT_SAMPLING = SamplingOptions()


def refuse_cut_offs(temperature: float | None, given: Mapping[str, float | int | None]) -> None:
    """Refuse cut-offs of a law that is a point mass: they would change nothing.

    Args:
        temperature: As asked; None is the default.
        given: Cut-offs by name; None and what cuts nothing off are not there.

    Raises:
        InvalidRequestError: With the remedy.
    """
    for name, value in given.items():
        if not temperature and value is not None and value != _NO_CUT_OFF[name]:
            raise InvalidRequestError(
                f"{name} does nothing at temperature 0{_default(temperature)}, got {value:g}: "
                "give a temperature above 0, or drop it"
            )


def _default(temperature: float | None) -> str:
    return ", the default" if temperature is None else ""


def seeded(params: SamplingParams) -> SamplingParams:
    """The same with a seed that can be told: one of its own where none was given.

    The verifier is fixed first, since a seed by itself would choose another.
    """
    if params.seed is not None:
        return params
    # 53 bits: a reader of our JSON may keep its numbers as doubles.
    return replace(params, seed=secrets.randbits(53), verifier=params.verifier_name)


_FORMS = {
    "--logit-bias": "ID=VALUE, such as 42=-1.5",
    "--sequence-bias": "ID,ID,...=VALUE, such as 42,7=-1.5",
}


def _biases(pairs: tuple[str, ...], option: str) -> dict[tuple[int, ...], float]:
    """Ids to what is added; one id only for --logit-bias."""
    biases: dict[tuple[int, ...], float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        names = name.split(",") if option == "--sequence-bias" else [name]
        try:
            ids, bias = tuple(map(int, names)), float(value)
        except ValueError as error:
            raise InvalidRequestError(f"{option} must be {_FORMS[option]}, got {pair!r}") from error
        if ids in biases:
            raise InvalidRequestError(
                f"{option} gives {name} two values, {biases[ids]:g} and {bias:g}: give one"
            )
        biases[ids] = bias
    return biases
