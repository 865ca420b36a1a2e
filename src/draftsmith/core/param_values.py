"""The fields of `SamplingParams` as a caller gives them, made values that nobody can change."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from draftsmith.core.structured import StructuredOutputs
from draftsmith.core.values import (
    FrozenDict,
    check_flag,
    check_number,
    check_token_ids,
    check_whole,
    is_moderate,
    is_whole,
    require,
)

__all__ = ["OWN_DEMANDS", "plain_value"]

_VERIFIER_NAMES = ("rejection", "block", "coupled")

OWN_DEMANDS = (
    *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "sequence_bias", "bad_words", "suppress_token_ids"),
    *("begin_suppress_token_ids", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "min_tokens"),
)
"""Fields that stand for the model's own demand of the same name, unless they are None."""

_NUMBERS = (
    *("temperature", "top_p", "min_p", "repetition_penalty", "encoder_repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "lossy_lenience", "draft_temperature"),
    "draft_top_p",
)
_WHOLE = (
    *("top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "forced_bos_token_id"),
    *("min_tokens", "max_tokens", "n", "seed", "logprobs", "draft_top_k"),
)
_ID_SETS = (
    *("banned_token_ids", "suppress_token_ids", "begin_suppress_token_ids"),
    *("allowed_token_ids", "stop_token_ids"),
)
_MAY_BE_NONE = frozenset(
    {
        *OWN_DEMANDS,
        *("allowed_token_ids", "max_tokens", "stop", "seed", "logprobs", "verifier"),
        *("draft_temperature", "draft_top_k", "draft_top_p", "structured_outputs"),
    }
)
_NONE_IS_EMPTY = frozenset({"logit_bias", "banned_token_ids", "stop_token_ids"})
"""Fields of which None asks nothing, as it does in OpenAI's and vLLM's requests."""


def plain_value(name: str, value: object) -> Any:  # noqa: ANN401 - any field's type
    """A field as a value of Python's own: NumPy's scalars are numbers, lists are copied.

    Args:
        name: The field of `SamplingParams`.
        value: What the caller gave.

    Returns:
        A value that nobody can change.

    Raises:
        InvalidRequestError: If it is of another type.
    """
    if value is None and name in _MAY_BE_NONE:
        return None
    if value is None and name in _NONE_IS_EMPTY:
        value = {} if name == "logit_bias" else ()
    return _CONVERTERS[name](name, value)


def _bias(name: str, value: object) -> FrozenDict:
    require(isinstance(value, Mapping), name, "a mapping of token ids to numbers", value)
    pairs = cast(Mapping[object, object], value).items()
    ids = "keyed by token ids"
    return FrozenDict({check_whole(name, t, ids): check_number(name, b) for t, b in pairs})


def _sequence_bias(name: str, value: object) -> FrozenDict:
    require(isinstance(value, Mapping), name, "a mapping of token sequences to numbers", value)
    pairs = cast(Mapping[object, object], value).items()
    found = {check_token_ids(name, word): check_number(name, bias) for word, bias in pairs}
    require(all(found), name, "keyed by sequences of one token or more", value)
    require(all(map(math.isfinite, found.values())), name, "finite (use bad_words)", value)
    require(all(map(is_moderate, found.values())), name, "between -1e30 and 1e30", value)
    return FrozenDict(found)


def _words(name: str, value: object) -> tuple[str | tuple[int, ...], ...]:
    rule = "made of strings or token-id sequences"
    if isinstance(value, str):
        value = (value,)
    is_list = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    require(is_list, name, rule, value)
    words: list[str | tuple[int, ...]] = []
    for word in cast(Iterable[object], value):
        require(not is_whole(word), name, rule, value)
        words.append(word if isinstance(word, str) else check_token_ids(name, word))
    require(all(words), name, "made of words that are not empty", value)
    return tuple(words)


def _forced_eos(name: str, value: object) -> int | tuple[int, ...]:
    return check_whole(name, value) if is_whole(value) else check_token_ids(name, value)


def _decay(name: str, value: object) -> tuple[int, float]:
    rule = "(start, factor), such as (15, 1.1)"
    is_pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    require(is_pair, name, rule, value)
    start, factor = cast(Sequence[object], value)
    pair = check_whole(name, start, rule), check_number(name, factor, rule)
    require(pair[0] >= 0 and math.isfinite(pair[1]) and pair[1] > 0, name, rule, value)
    return pair


def _stop(name: str, value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    rule = "a string or several"
    is_list = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    require(is_list, name, rule, value)
    items = tuple(cast(Iterable[object], value))
    require(all(isinstance(item, str) for item in items), name, rule, value)
    return cast(tuple[str, ...], items)


def _form(name: str, value: object) -> StructuredOutputs:
    del name
    return StructuredOutputs.from_value(value)


def _verifier(name: str, value: object) -> str:
    is_known = isinstance(value, str) and value in _VERIFIER_NAMES
    require(is_known, name, f"one of {', '.join(_VERIFIER_NAMES)}", value)
    return str(value)


_CONVERTERS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(_NUMBERS, check_number),
    **dict.fromkeys(_WHOLE, check_whole),
    **dict.fromkeys(_ID_SETS, check_token_ids),
    "ignore_eos": check_flag,
    "logit_bias": _bias,
    "sequence_bias": _sequence_bias,
    "bad_words": _words,
    "forced_eos_token_id": _forced_eos,
    "exponential_decay_length_penalty": _decay,
    "stop": _stop,
    "structured_outputs": _form,
    "verifier": _verifier,
}
