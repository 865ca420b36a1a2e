"""Rotary positions as a GGUF file states them, by the rules of llama.cpp (build b11549).

The file's scaling is `linear` where it names none; `rope.scale_linear` is the factor's name in
files from before November 2023; a factor of 0 is 1. Tensors of factors divide the frequencies,
whatever the scaling; `attn_factor` multiplies cosine and sine, beside what yarn itself puts there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.config import number_option, size_option, unsupported
from draftsmith.models.native.rotary import RotaryConfig, scaled_rotary

__all__ = [
    "FACTOR_TENSORS",
    "LOCAL_ROPE_KEYS",
    "LONGROPE_TENSORS",
    "ROPE_KEYS",
    "ReadFactors",
    "gguf_rotary",
    "local_rotary",
]

_ANY, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
LONGROPE_TENSORS = (_SHORT, _LONG)
FACTOR_TENSORS = (_ANY, *LONGROPE_TENSORS)
"""Tensors that belong to the positions, not to the weights."""

ReadFactors = Callable[[str], Float[Tensor, " half_head"] | None]
"""Reads one of `FACTOR_TENSORS`; None if the file lacks it."""

_LONGROPE = "longrope"
_TYPE, _FACTOR, _OLD_FACTOR = "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"
_ORIGINAL = "rope.scaling.original_context_length"
_YARN = {
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
}
"""Yarn's own numbers: llama.cpp computes with these, whatever a file of our families says."""

ROPE_KEYS = {
    "rope.dimension_count", "rope.freq_base", _TYPE, _FACTOR, _OLD_FACTOR, _ORIGINAL,
    "rope.scaling.attn_factor", "rope.scaling.finetuned", *_YARN,
}  # fmt: skip
"""All that is read of a file's positions; `finetuned` only says how the model was made."""

LOCAL_ROPE_KEYS = {"rope.freq_base_swa"}
"""Of the layers with a window, in the families that give them positions of their own."""


def gguf_rotary(
    options: Mapping[str, object],
    num_elements: int,
    context_length: int,
    read: ReadFactors,
    *,
    is_long_by_tensor: bool = False,
) -> tuple[RotaryConfig, int]:
    """Resolve what a file says of its positions.

    Args:
        options: The keys of its architecture, without the prefix.
        num_elements: Of a head, that are rotated.
        context_length: What the file gives.
        read: Gives the tensors of factors.
        is_long_by_tensor: Whether short and long factors mean `longrope` without its name.

    Returns:
        The positions, and how many of them they hold for: with `longrope` the original context,
        where the short factors are right. Beyond it a model's law depends on the length of the
        text, and llama.cpp and transformers change factors at different places.

    Raises:
        ModelFormatError: A scaling, a value or a tensor that is not known; it is named.
    """
    theta = number_option(options, "rope.freq_base", 10_000.0)
    kind = str(options.get(_TYPE, "linear"))
    if is_long_by_tensor and any(read(name) is not None for name in LONGROPE_TENSORS):
        kind = _LONGROPE
    scaling, length = _scaling(options, kind, context_length)
    rotary = scaled_rotary(theta, num_elements, context_length, scaling)
    factors = _factors(read, is_long=kind == _LONGROPE, num_angles=num_elements // 2)
    if factors is not None:
        divided = rotary.inverse_frequencies / factors
        rotary = replace(rotary, inverse_frequencies=divided, told=None)
    factor = number_option(options, "rope.scaling.attn_factor", 1.0)
    told = rotary.told if factor == 1.0 else None
    return replace(rotary, scale=rotary.scale * factor, told=told), length


def local_rotary(options: Mapping[str, object], num_elements: int) -> RotaryConfig:
    """The positions of the layers with a window, in a family that scales only the others.

    Raises:
        ModelFormatError: The file's scaling is more than a factor: it is named.
    """
    if options.get(_TYPE, "linear") not in ("none", "linear"):
        raise unsupported(_TYPE, options[_TYPE], "none and linear beside two kinds of layers")
    if options.get("rope.scaling.attn_factor", 1.0) != 1.0:
        raise unsupported("rope.scaling.attn_factor", options["rope.scaling.attn_factor"], "1.0")
    theta = number_option(options, "rope.freq_base_swa", 10_000.0)
    return scaled_rotary(theta, num_elements, 0, {})


def _scaling(
    options: Mapping[str, object], kind: str, context_length: int
) -> tuple[dict[str, object], int]:
    """The scaling in the words of `scaled_rotary`, and the positions that it holds for."""
    factor = _factor(options)
    for key, default in _YARN.items():
        if options.get(key, default) != default:
            raise unsupported(key, options[key], str(default))
    match kind:
        case "none" if factor == 1.0:
            return {}, context_length
        case "none":
            # llama.cpp drops the factor, but not in the layers that have a window.
            raise unsupported(_FACTOR, factor, f"1 with {_TYPE} 'none'")
        case "linear":
            return {"rope_type": "linear", "factor": factor}, context_length
        case "yarn":
            return _yarn(options, factor, context_length), context_length
        case "longrope":
            if factor != 1.0:
                raise unsupported(_FACTOR, factor, "1 beside longrope's own factors")
            return {}, min(context_length, size_option(options, _ORIGINAL, context_length))
        case _:
            raise unsupported(_TYPE, kind, f"none, linear, yarn and {_LONGROPE}")


def _factor(options: Mapping[str, object]) -> float:
    """The new key or the old one; 0 stands for none."""
    key = _FACTOR if _FACTOR in options else _OLD_FACTOR
    return 1.0 if not options.get(key, 1.0) else number_option(options, key, 1.0)


def _yarn(options: Mapping[str, object], factor: float, context_length: int) -> dict[str, object]:
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": size_option(options, _ORIGINAL, context_length),
        "attention_factor": 0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0,
        "beta_fast": _YARN["rope.scaling.yarn_beta_fast"],
        "beta_slow": _YARN["rope.scaling.yarn_beta_slow"],
    }


def _factors(
    read: ReadFactors, *, is_long: bool, num_angles: int
) -> Float[Tensor, " half_head"] | None:
    """The tensor that divides the frequencies; None if there is none."""
    found = {name: factors for name in FACTOR_TENSORS if (factors := read(name)) is not None}
    wanted = {_SHORT, _LONG} if is_long else set(found) & {_ANY}
    for name in sorted(wanted ^ set(found)):
        beside = f"{_TYPE} {_LONGROPE!r}" if is_long else f"another scaling than {_LONGROPE!r}"
        verb = "lacks" if name in wanted else "has"
        raise ModelFormatError(f"it {verb} tensor {name!r} beside {beside}; convert it again")
    for name, factors in found.items():
        if factors.shape != (num_angles,):
            raise ModelFormatError(
                f"tensor {name!r} has shape {tuple(factors.shape)}, but the config means "
                f"({num_angles},)"
            )
        if not bool((factors.isfinite() & (factors > 0)).all()):
            raise ModelFormatError(f"tensor {name!r} has a factor that is no number above 0")
    return found.get(_SHORT if is_long else _ANY)
