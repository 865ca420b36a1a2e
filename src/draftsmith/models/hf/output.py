"""What `transformers`' own `generate` returns."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

from transformers.generation.utils import (
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)

__all__ = ["generate_output"]


def generate_output(sequences: Any, *, is_encoder_decoder: bool) -> Any:
    """The output object of `return_dict_in_generate=True`, with the sequences only."""
    kind = GenerateEncoderDecoderOutput if is_encoder_decoder else GenerateDecoderOnlyOutput
    return kind(sequences=sequences)
