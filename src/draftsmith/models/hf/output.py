"""What `transformers`' own `generate` returns, and stops at."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from dataclasses import dataclass, fields
from typing import Any

from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.generation.utils import (
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)

__all__ = ["generate_output", "stop_string_criterion"]


@dataclass
class _DecoderOnlyOutput(GenerateDecoderOnlyOutput):
    """With what speculation did."""

    statistics: Any = None


@dataclass
class _EncoderDecoderOutput(GenerateEncoderDecoderOutput):
    """With what speculation did."""

    statistics: Any = None


def generate_output(
    sequences: Any, cache: Any, statistics: Any, *, is_encoder_decoder: bool
) -> Any:
    """The output object of `return_dict_in_generate=True`.

    Args:
        sequences: Prompts and outputs.
        cache: Filled with all but the last token; None where nobody has one.
        statistics: Of the run.
        is_encoder_decoder: Which kind of output.
    """
    kind = _EncoderDecoderOutput if is_encoder_decoder else _DecoderOnlyOutput
    names = {field.name for field in fields(kind)}
    # The cache's field is called past_key_values up to transformers 5.23.
    named = {"cache" if "cache" in names else "past_key_values": cache}
    return kind(sequences=sequences, statistics=statistics, **named)


def stop_string_criterion(stop_strings: Any, tokenizer: Any) -> Any:
    """`transformers`' own criterion for `stop_strings`."""
    return StopStringCriteria(tokenizer=tokenizer, stop_strings=stop_strings)
