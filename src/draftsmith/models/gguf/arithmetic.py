"""Scales, caps, windows and activations by which the families of GGUF files differ."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from draftsmith.models.gguf.positions import local_rotary
from draftsmith.models.native.config import RotaryConfig, Scales, number_option, size_option

__all__ = ["Arithmetic", "Sizes", "arithmetic_of"]

_PERIOD = "attention.sliding_window_pattern"
_GEMMA2_PERIOD, _GEMMA3_PERIOD = 2, 6
_GEMMA2_LARGEST, _GEMMA3_LARGEST = 46, 62  # layers
_GEMMA2_WINDOW = 4096


@dataclass(frozen=True)
class Sizes:
    """What the arithmetic may depend on."""

    num_layers: int
    hidden_size: int
    num_heads: int
    head_size: int
    num_turned: int
    """Elements of a head that are rotated."""


@dataclass(frozen=True)
class Arithmetic:
    """What a family computes in its own way; the defaults are Llama's."""

    scales: Scales = field(default_factory=Scales)
    activation: Literal["silu", "gelu"] = "silu"
    normalises_outputs: bool = False
    window: int | None = None
    """Of the layers that slide."""
    period: int = 0
    """The last of so many layers does not slide; 0 is that none slides."""
    local_rotary: RotaryConfig | None = None

    def windows(self, num_layers: int) -> tuple[int | None, ...]:
        """The sliding window of each layer."""
        if not self.period:
            return (None,) * num_layers
        is_whole = [layer % self.period == self.period - 1 for layer in range(num_layers)]
        return tuple(None if whole else self.window for whole in is_whole)


def arithmetic_of(family: str, options: Mapping[str, object], sizes: Sizes) -> Arithmetic:
    """What the metadata of a file mean beside the common shape.

    Args:
        family: The file's architecture.
        options: Its keys, without the prefix.
        sizes: Of the model.

    Raises:
        ModelFormatError: A value is missing or out of range; it is named.
    """
    match family:
        case "granite":
            return Arithmetic(_granite_scales(options))
        case "gemma":
            return Arithmetic(Scales(embedding=math.sqrt(sizes.hidden_size)), "gelu")
        case "gemma2":
            return _gemma2(options, sizes)
        case "gemma3":
            return _gemma3(options, sizes)
        case _:
            return Arithmetic()


def _granite_scales(options: Mapping[str, object]) -> Scales:
    """Left out, or 0: no scale; only the logits always have one, which divides them."""
    return Scales(
        embedding=_scale(options, "embedding_scale") or 1.0,
        residual=_scale(options, "residual_scale") or 1.0,
        attention=_scale(options, "attention.scale"),
        logits=1.0 / number_option(options, "logit_scale"),
    )


def _scale(options: Mapping[str, object], key: str) -> float | None:
    return number_option(options, key) if options.get(key) else None


def _gemma2(options: Mapping[str, object], sizes: Sizes) -> Arithmetic:
    scales = Scales(
        embedding=math.sqrt(sizes.hidden_size),
        attention=_gemma_scale(sizes, _GEMMA2_LARGEST),
        attention_cap=number_option(options, "attn_logit_softcapping"),
        logit_cap=number_option(options, "final_logit_softcapping"),
    )
    return Arithmetic(
        scales,
        "gelu",
        normalises_outputs=True,
        window=size_option(options, "attention.sliding_window", _GEMMA2_WINDOW),
        period=size_option(options, _PERIOD, _GEMMA2_PERIOD, least=2),
    )


def _gemma3(options: Mapping[str, object], sizes: Sizes) -> Arithmetic:
    scales = Scales(
        embedding=math.sqrt(sizes.hidden_size), attention=_gemma_scale(sizes, _GEMMA3_LARGEST)
    )
    return Arithmetic(
        scales,
        "gelu",
        normalises_outputs=True,
        window=size_option(options, "attention.sliding_window"),
        period=size_option(options, _PERIOD, _GEMMA3_PERIOD, least=2),
        local_rotary=local_rotary(options, sizes.num_turned),
    )


def _gemma_scale(sizes: Sizes, largest: int) -> float | None:
    """The 27B models alone, known by their layers, divide by more than a head's size."""
    if sizes.num_layers != largest:
        return None
    return (sizes.hidden_size // sizes.num_heads) ** -0.5
