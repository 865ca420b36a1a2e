"""Which logits processors and stopping criteria are functions of the prefix they are shown."""

from collections.abc import Iterable
from typing import Any, TypeVar

from draftsmith.errors import InvalidRequestError

__all__ = ["is_stateless", "names_of_stateful", "stateless"]

_T = TypeVar("_T")

_MARK = "_draftsmith_is_stateless"

_KNOWN = {
    "transformers.generation.logits_process": {
        "AlternatingCodebooksLogitsProcessor",
        "BarkEosPrioritizerLogitsProcessor",
        "EncoderNoRepeatNGramLogitsProcessor",
        "EncoderRepetitionPenaltyLogitsProcessor",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "ExponentialDecayLengthPenalty",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "InfNanRemoveLogitsProcessor",
        "LogitNormalization",
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "MinPLogitsWarper",
        "NoBadWordsLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "SequenceBiasLogitsProcessor",
        "SuppressTokensAtBeginLogitsProcessor",
        "SuppressTokensLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "TypicalLogitsWarper",
        "WatermarkLogitsProcessor",
        "WhisperTimeStampLogitsProcessor",
    },
    "transformers.generation.stopping_criteria": {
        "EosTokenCriteria",
        "MaxLengthCriteria",
        "MaxTimeCriteria",
        "StopStringCriteria",
    },
}
"""By module and name, read in transformers 5.17 and 5.24: what they keep, no call changes."""


def stateless(rule: _T) -> _T:
    """Declare a logits processor, stopping criterion or prefix function a function of the prefix.

    The same prefix must always give the same answer, whatever was asked before. Then it may be
    asked about drafted tokens, and speculation goes on beside it.

    Args:
        rule: Yours.

    Returns:
        What was passed, marked.

    Raises:
        InvalidRequestError: If it cannot be marked.

    Example:
        >>> rule = stateless(lambda batch_id, input_ids: [5, 6, 7])
        >>> rule(0, None)
        [5, 6, 7]
    """
    try:
        setattr(rule, _MARK, True)
    except AttributeError as error:
        kind = type(rule).__name__
        raise InvalidRequestError(f"{kind} takes no attributes: wrap it in a function") from error
    return rule


def is_stateless(rule: Any) -> bool:
    """Whether a rule is known, by its very class, or declared to be a function of the prefix."""
    # A mark on the class would be inherited by subclasses, which may keep a state.
    if _MARK in getattr(rule, "__dict__", {}):
        return True
    kind = type(rule)
    if kind.__module__ == "transformers.generation.logits_process" and (
        kind.__name__ == "PrefixConstrainedLogitsProcessor"
    ):
        return is_stateless(rule._prefix_allowed_tokens_fn)
    return kind.__qualname__ in _KNOWN.get(kind.__module__, ())


def names_of_stateful(rules: Iterable[Any]) -> list[str]:
    """The classes (or functions) that may keep a state."""
    return [
        getattr(rule, "__name__", type(rule).__name__) for rule in rules if not is_stateless(rule)
    ]
