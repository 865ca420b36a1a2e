"""Rotary frequencies that depend on how long the text is: what a model has, and where it changes.

`transformers` (modeling_rope_utils.py, 5.17 to 5.24) takes the frequencies of a pass from its
largest position, for all of its tokens: `longrope` has short factors up to the length of the first
training and long ones beyond; `dynamic` has other frequencies for every length beyond the trained.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from dataclasses import dataclass
from typing import Any

from draftsmith.errors import ModelFormatError

__all__ = ["LengthLaw", "length_law", "reset_dynamic"]


@dataclass(frozen=True)
class LengthLaw:
    """How frequencies depend on the length of a text."""

    last_length: int
    """Longest text with the first frequencies."""
    is_dynamic: bool
    """Whether every longer text has its own; else all of them have the same."""


def length_law(model: Any) -> LengthLaw | None:
    """How a model's frequencies depend on the length; None if they do not.

    Raises:
        ModelFormatError: If they do in more than one way.
    """
    laws = {law for module in model.modules() for law in _laws(module)}
    if len(laws) > 1:
        raise ModelFormatError(
            f"{model.config.model_type} has rotary frequencies that change at several lengths "
            f"({sorted(law.last_length for law in laws)}): not supported"
        )
    return next(iter(laws), None)


def _laws(module: Any) -> list[LengthLaw]:
    """What a rotary module, one a kind of layer in some families, has."""
    laws: list[LengthLaw] = []
    for layer_type, rope_type in _rope_types(module).items():
        if rope_type == "longrope":
            settings = module.config.rope_parameters
            settings = settings if layer_type is None else settings[layer_type]
            laws.append(LengthLaw(int(settings["original_max_position_embeddings"]), False))
        elif "dynamic" in rope_type:
            laws.append(LengthLaw(int(module.original_max_seq_len), True))
    return laws


def _rope_types(module: Any) -> dict[str | None, str]:
    kinds = getattr(module, "rope_type", None)
    if isinstance(kinds, str):
        return {None: kinds}
    return kinds if isinstance(kinds, dict) else {}


def reset_dynamic(model: Any) -> None:
    """Give dynamic frequencies back what they began with: a longer text leaves its own behind."""
    for module in model.modules():
        for layer_type, rope_type in _rope_types(module).items():
            if "dynamic" in rope_type:
                prefix = "" if layer_type is None else f"{layer_type}_"
                first = getattr(module, f"{prefix}original_inv_freq")
                current = getattr(module, f"{prefix}inv_freq")
                module.register_buffer(
                    f"{prefix}inv_freq", first.to(current.device), persistent=False
                )
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
