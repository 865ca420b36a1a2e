"""What a folder's `generation_config.json` asks of every text, honoured or refused by name.

The file mixes the caller's taste (temperature, beams, lengths), which stays the caller's, with
rules that `transformers` applies at every position, greedy decoding included (its
`_get_logits_processor`, generation/utils.py, 5.24). The second kind is part of what the model's
makers call its output. So every field has its place in one of the tables here, and a field that is
in none is refused: a later library may have given it a meaning.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.params import SamplingParams
from draftsmith.core.values import FrozenDict, check_token_ids, check_whole, require
from draftsmith.errors import InvalidRequestError, ModelFormatError

__all__ = ["HONOURED", "OURS", "REFUSED", "WITHOUT_EFFECT", "demands_of", "read_demands"]

_log = logging.getLogger(__name__)

HONOURED: dict[str, str] = {
    "repetition_penalty": "repetition_penalty",
    "encoder_repetition_penalty": "encoder_repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram_size",
    "sequence_bias": "sequence_bias",
    "bad_words_ids": "bad_words",
    "suppress_tokens": "suppress_token_ids",
    "begin_suppress_tokens": "begin_suppress_token_ids",
    "forced_bos_token_id": "forced_bos_token_id",
    "forced_eos_token_id": "forced_eos_token_id",
    "exponential_decay_length_penalty": "exponential_decay_length_penalty",
    "min_length": "min_length",
    "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
}
"""Fields of the file to those of `Demands`."""

OURS = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
        *("epsilon_cutoff", "eta_cutoff"),
        *("num_beams", "num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping"),
        *("num_return_sequences", "max_length", "max_new_tokens", "max_time"),
    }
)
"""How to draw, to search, and when to have enough: a request's own, whatever the file says."""

WITHOUT_EFFECT = frozenset(
    {
        # Read where the model is: they are its ids, and no rule.
        *("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id"),
        # How the library computes.
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory"),
        *("compile_config", "disable_compile", "continuous_batching_config", "prefill_chunk_size"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        *("return_dict_in_generate", "transformers_version"),
        # How the library speculates: the model's own law is without it.
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "use_mtp"),
        *("assistant_confidence_threshold", "prompt_lookup_num_tokens", "speculation_type"),
        *("max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind"),
        *("target_lookbehind", "assistant_ensemble_weight"),
        # A law stays as it is when it is normalised; logits that are none end a text here.
        *("renormalize_logits", "remove_invalid_values"),
        # Of other programs, seen beside models that are loaded here.
        *("chat_format", "max_window_size", "user_token_id", "assistant_token_id"),
        "trust_remote_code",
    }
)

REFUSED: dict[str, tuple[object, ...]] = {
    "guidance_scale": (1, 1.0),
    "watermarking_config": (),
    "token_healing": (False,),
    "penalty_alpha": (0, 0.0),
    "dola_layers": (),
    "constraints": ((), []),
    "force_words_ids": ((), []),
    "forced_decoder_ids": ((), []),
}
"""Fields that change every text and are not honoured, with the values that do nothing."""

_SAID = "%s asks for %s; here a request chooses those (SamplingParams), and greedy is the default"


def read_demands(folder: Path, eos_token_ids: tuple[int, ...], name: str) -> Demands:
    """Read a model folder's `generation_config.json`; older folders have it in `config.json`.

    Args:
        folder: Of one model.
        eos_token_ids: The model's; a bad word that is one of them alone counts for nothing.
        name: Of the model, for the log.

    Returns:
        What it asks; what cannot be honoured stands in `refused`.

    Raises:
        ModelFormatError: If a file is no JSON.
    """
    beside = folder / "generation_config.json"
    if beside.is_file():
        return demands_of(_read(beside), eos_token_ids, name)
    # As transformers does where the file is missing: the older one has the fields.
    values = _read(folder / "config.json")
    known = {key: value for key, value in values.items() if key in HONOURED or key in REFUSED}
    return demands_of(known, eos_token_ids, name, where="config.json")


def demands_of(
    values: Mapping[str, object],
    eos_token_ids: tuple[int, ...],
    name: str,
    where: str = "generation_config.json",
) -> Demands:
    """Turn the parsed file into demands.

    Args:
        values: The file's fields; None stands for an unset one.
        eos_token_ids: As `read_demands` takes it.
        name: As `read_demands` takes it.
        where: The file's name, for messages.

    Example:
        >>> demands_of({"suppress_tokens": [25]}, (), "tiny").suppress_token_ids
        (25,)
    """
    given = {key: value for key, value in values.items() if value is not None and key[0] != "_"}
    ours = [f"{key}={given[key]!r}" for key in sorted(OURS & given.keys())]
    if ours:
        _log.info(_SAID, f"{name}: {where}", ", ".join(ours))
    demands = NO_DEMANDS
    for key, value in given.items():
        if key in OURS or key in WITHOUT_EFFECT or value in REFUSED.get(key, ()):
            continue
        if key not in HONOURED:
            return Demands(refused=_why_refused(key, value, where))
        try:
            demands = replace(demands, **{HONOURED[key]: _demand(key, value, eos_token_ids)})
        except InvalidRequestError as error:
            return Demands(refused=f"{key} of {where} is malformed ({error}): mend the file")
    return demands


def _why_refused(key: str, value: object, where: str) -> str:
    shown = " ".join(repr(value).split())
    what = "cannot be honoured" if key in REFUSED else "is not known"
    return f"{key}={shown:.60} of {where} {what}: take it out of the file if it can be spared"


def _demand(key: str, value: object, eos_token_ids: tuple[int, ...]) -> Any:  # noqa: ANN401 - any field's type
    """One field's value as `Demands` has it, checked as a request's own would be."""
    if key == "min_length":
        least = check_whole(key, value)
        require(least >= 0, key, "0 or more", value)
        return least
    if key == "min_new_tokens":
        return SamplingParams.from_options(min_tokens=value, max_tokens=2**62).min_tokens
    if key == "sequence_bias":
        return _sequence_bias(value)
    name = HONOURED[key]
    found = getattr(SamplingParams.from_options(**{name: value}).over(), name)
    if key == "bad_words_ids":
        alone = {(token,) for token in eos_token_ids}
        require(not isinstance(value, str), key, "token-id sequences", value)
        require(len(found) == len(cast(list[object], value)), key, "token-id sequences", value)
        return tuple(word for word in found if word not in alone)
    return found


def _sequence_bias(value: object) -> FrozenDict:
    """Pairs of a sequence and its bias, as JSON has them."""
    rule = "pairs of token ids and a number"
    require(isinstance(value, list), "sequence_bias", rule, value)
    pairs = cast(list[object], value)
    is_pair = all(isinstance(pair, list) and len(cast(list[object], pair)) == 2 for pair in pairs)
    require(is_pair, "sequence_bias", rule, value)
    found = {
        check_token_ids("sequence_bias", word): bias for word, bias in cast(list[list[Any]], pairs)
    }
    checked = SamplingParams.from_options(sequence_bias=found).sequence_bias
    return FrozenDict(checked or {})


def _read(path: Path) -> dict[str, object]:
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} cannot be read ({error}): fetch it again") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path} is no JSON object: fetch it again")
    return cast(dict[str, object], value)
