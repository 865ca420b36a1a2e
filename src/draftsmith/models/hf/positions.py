"""How many positions a model of `transformers` was made for, and where they end."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import re
from typing import Any

from torch import nn

__all__ = ["context_length", "position_limit", "source_length"]

_LENGTHS = (
    "max_decoder_position_embeddings",
    "max_target_positions",
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
)
_SOURCE_LENGTHS = ("max_encoder_position_embeddings", "max_source_positions")
_TABLE = re.compile(r"pos|wpe")
_FIXED_BIAS = {"mpt"}
"""Families without a table that still build their distance biases for so many positions."""
_MOST_OFFSET = 8
"""Places that tables keep before the first position (OPT: 2)."""


def context_length(config: Any) -> int | None:
    """Positions that the config of a decoder states; None where it knows no last one."""
    if hasattr(config, "relative_attention_num_buckets"):
        return None  # positions are distances: there is no last one
    return _stated(config, _LENGTHS)


def source_length(config: Any) -> int | None:
    """Most tokens of a source, for the config of an encoder-decoder; None is unlimited."""
    stated = _stated(config, _SOURCE_LENGTHS)
    return context_length(config) if stated is None else stated


def position_limit(model: Any) -> int | None:
    """Positions that exist, where a table holds them; None where they are computed at need.

    Rotary frequencies and distance biases reach any position, and `transformers` goes on beyond the
    trained length with them; a learned table ends.
    """
    config = model.config.get_text_config(decoder=True)
    length = context_length(config)
    if length is None or any(name.endswith("inv_freq") for name, _ in model.named_buffers()):
        return None
    has_table = config.model_type in _FIXED_BIAS or any(
        _is_table(module, length) for module in _position_modules(model)
    )
    return length if has_table else None


def _position_modules(model: Any) -> list[nn.Module]:
    """Modules that hold positions, the encoder's left out."""
    return [
        module
        for name, module in model.named_modules()
        if not name.startswith(("encoder.", "model.encoder."))
        # Two parts of the name: Reformer's table lies in `position_embeddings.embedding`.
        and any(_TABLE.search(part) for part in (*name.split(".")[-2:], *_own_names(module)))
    ]


def _own_names(module: nn.Module) -> list[str]:
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [name for name, _ in tensors]


def _is_table(module: nn.Module, length: int) -> bool:
    if hasattr(module, "make_weights") or hasattr(module, "make_weight"):
        return False  # sinusoids of M2M100, XGLM and FSMT, which grow when a text needs them
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(length <= size <= length + _MOST_OFFSET for one in tensors for size in one.shape)


def _stated(config: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None
