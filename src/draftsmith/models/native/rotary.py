"""Rotary position embeddings (Su et al., arXiv:2104.09864) and the ways to stretch them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ModelFormatError

__all__ = ["SCALINGS", "RotaryConfig", "scaled_rotary"]

_LARGEST = 1e30
"""What is scaled by more is no position any more; beyond float32, arithmetic ends."""

SCALINGS = ("default", "linear", "llama3", "yarn")
"""The scalings that `scaled_rotary` computes, by their names in `config.json`."""


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary position embeddings (Su et al., arXiv:2104.09864) and their scaling, resolved.

    Halves are rotated (element i with element i + head_size / 2), as in the `transformers` layout.
    """

    inverse_frequencies: Float[Tensor, " half_head"]
    """Float32, after scaling (linear, llama3, yarn)."""
    scale: float = 1.0
    """Multiplies cosine and sine (yarn's attention factor)."""
    told: Mapping[str, object] | None = None
    """As `rope_parameters` of a `config.json` say it; None where no such file could."""


def scaled_rotary(
    theta: float, head_size: int, context_length: int, options: Mapping[str, object]
) -> RotaryConfig:
    """Resolve a base and a scaling to frequencies: `theta ** (-2i / head_size)`, scaled.

    Args:
        theta: The base, above 1.
        head_size: Elements of a head, all of them rotated.
        context_length: Positions of the model; stands in for those of its first training where
            the options do not give `original_max_position_embeddings`.
        options: `rope_scaling` or `rope_parameters` of a `config.json`; empty for no scaling.

    Returns:
        The frequencies, bit-identical to those that `transformers` computes on a CPU.

    Raises:
        ModelFormatError: If the scaling is none of `SCALINGS`, or lacks a number.

    References:
        yarn: Peng et al., arXiv:2309.00071, equations 17 to 22.
    """
    if not 1 < theta <= _LARGEST:
        raise ModelFormatError(f"the base of the rotary positions is {theta}; it must be above 1")
    kind = options.get("rope_type", options.get("type", "default"))
    told = {**options, "rope_type": kind, "rope_theta": theta}
    return replace(_resolved(kind, theta, head_size, context_length, options), told=told)


def _resolved(
    kind: object, theta: float, head_size: int, context_length: int, options: Mapping[str, object]
) -> RotaryConfig:
    match kind:
        case "default":
            return RotaryConfig(1.0 / _wavelengths(theta, head_size))
        case "linear":
            return RotaryConfig(1.0 / _wavelengths(theta, head_size) / _number(options, "factor"))
        case "llama3":
            return _llama3(theta, head_size, context_length, options)
        case "yarn":
            return _yarn(theta, head_size, context_length, options)
        case _:
            raise ModelFormatError(
                f"rope scaling {kind!r} is not supported natively, only {', '.join(SCALINGS)}"
            )


def _wavelengths(theta: float, head_size: int) -> Float[Tensor, " half_head"]:
    """Positions per radian."""
    return theta ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)


def _llama3(
    theta: float, head_size: int, context_length: int, options: Mapping[str, object]
) -> RotaryConfig:
    """Slow waves are divided by the factor, fast ones kept, the ones between blended."""
    factor = _number(options, "factor")
    low, high = _number(options, "low_freq_factor"), _number(options, "high_freq_factor")
    trained = _trained_length(options, context_length)
    plain = 1.0 / _wavelengths(theta, head_size)
    periods = 2 * math.pi / plain
    blend = (trained / periods - low) / (high - low)
    blended = (1 - blend) * plain / factor + blend * plain
    slow = torch.where(periods > trained / low, plain / factor, blended)
    return RotaryConfig(torch.where(periods < trained / high, plain, slow))


def _yarn(
    theta: float, head_size: int, context_length: int, options: Mapping[str, object]
) -> RotaryConfig:
    """As llama3's, but blended along the elements; attention is tempered as well."""
    trained = _trained_length(options, context_length)
    if options.get("factor") is None:
        factor = context_length / trained
    else:
        factor = _number(options, "factor")
    fast, slow = _number(options, "beta_fast", 32), _number(options, "beta_slow", 1)

    def element(num_turns: float) -> float:
        """The element that turns so many times within the trained length."""
        turns = math.log(trained / (num_turns * 2 * math.pi))
        return head_size * turns / (2 * math.log(theta))

    low, high = element(fast), element(slow)
    if options.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    width = high - low if high != low else 0.001
    ramp = ((torch.arange(head_size // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    wavelengths = _wavelengths(theta, head_size)
    # 1 - (1 - ramp), not ramp: rounded as the reference rounds it.
    kept = 1 - ramp
    frequencies = 1.0 / (factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept
    return RotaryConfig(frequencies, _yarn_scale(factor, options))


def _yarn_scale(factor: float, options: Mapping[str, object]) -> float:
    """What multiplies cosine and sine."""
    if options.get("attention_factor") is not None:
        return _number(options, "attention_factor")
    mscale, mscale_all = _number(options, "mscale", 0), _number(options, "mscale_all_dim", 0)
    if mscale and mscale_all:
        return _temper(factor, mscale) / _temper(factor, mscale_all)
    return _temper(factor, 1.0)


def _temper(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _trained_length(options: Mapping[str, object], context_length: int) -> float:
    return _number(options, "original_max_position_embeddings", context_length)


def _number(options: Mapping[str, object], key: str, default: float | int | None = None) -> float:
    """A positive number among the options; the default stands for one not given, or null."""
    value = options.get(key)
    if value is None and default is not None:
        return float(default)
    is_bool = isinstance(value, bool)
    if is_bool or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        raise ModelFormatError(f"rope scaling has {key} {value!r:.60}; it must be a number above 0")
    return float(value)
