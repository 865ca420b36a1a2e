"""The architectures whose GGUF files are read, and what each of them may say.

Taken from llama.cpp (build b11549: `llama-arch.cpp`, `llama-model.cpp`, `src/models/*.cpp`) and
checked against its logits (`benchmarks/gguf_grid.py`). A key, a tensor or a value that is not
listed is refused by name, for it could change the arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.positions import (
    FACTOR_TENSORS,
    LOCAL_ROPE_KEYS,
    LONGROPE_TENSORS,
    ROPE_KEYS,
)
from draftsmith.models.native.config import unsupported

__all__ = ["FAMILIES", "Family", "family_of", "family_options"]

_COMMON_KEYS = ROPE_KEYS | {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.sliding_window",
}  # fmt: skip

_ONLY: Mapping[str, object] = {
    # Dense models are also written with no experts.
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    # How the rows of queries and keys were ordered before the conversion; llama.cpp never reads it.
    "tensor_data_layout": "Meta AI original pth",
}
"""Keys that may be there with this one value, which changes nothing."""

_QUERY_KEY_VALUE = ("query", "key", "value")


@dataclass(frozen=True)
class Family:
    """One architecture of llama.cpp."""

    is_interleaved: bool = False
    """Whether the two elements of a rotary pair are neighbours in the file, not halves apart."""
    biases: tuple[str, ...] = ()
    """Which matrices always have a bias."""
    may_have_biases: tuple[str, ...] = ()
    """Which have one if the file's first layer has."""
    factor_tensors: tuple[str, ...] = ()
    """Tensors of rotary factors that it may have."""
    is_long_by_tensor: bool = False
    """Whether short and long factors speak for themselves, without the scaling's name."""
    may_turn_part: bool = False
    """Whether only the first elements of a head may be rotated."""
    is_fused: bool = False
    """Whether query, key and value lie in one tensor, gate and up in another."""
    is_always_tied: bool = False
    """Whether the head is the embedding in every file."""
    normalises_heads: bool = False
    keys: frozenset[str] = frozenset()
    """Beside those of all families."""


_LLAMA = Family(
    is_interleaved=True,
    may_have_biases=(*_QUERY_KEY_VALUE, "output", "gate", "up", "down"),
    factor_tensors=FACTOR_TENSORS,
)
_GRANITE_KEYS = {"logit_scale", "residual_scale", "embedding_scale", "attention.scale"}
_WINDOW_KEYS = {"attention.sliding_window", "attention.sliding_window_pattern"}
_CAP_KEYS = {"attn_logit_softcapping", "final_logit_softcapping"}

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,  # and Mistral, SmolLM and others that are Llamas by another name
    "qwen2": Family(biases=_QUERY_KEY_VALUE),
    "qwen3": Family(normalises_heads=True),
    "granite": replace(_LLAMA, keys=frozenset(_GRANITE_KEYS)),
    "phi3": Family(
        is_fused=True,
        may_turn_part=True,
        factor_tensors=LONGROPE_TENSORS,
        is_long_by_tensor=True,
    ),
    "gemma": Family(is_always_tied=True),
    "gemma2": Family(is_always_tied=True, keys=frozenset(_WINDOW_KEYS | _CAP_KEYS)),
    "gemma3": Family(
        is_always_tied=True,
        normalises_heads=True,
        keys=frozenset(_WINDOW_KEYS | LOCAL_ROPE_KEYS),
    ),
}
"""By `general.architecture`."""


def family_of(metadata: Mapping[str, object]) -> tuple[str, Family]:
    """The architecture that a file names, if it is one that we read.

    Raises:
        ModelFormatError: It is another, or the file is no model (an adapter, a projector); named.
    """
    name = str(metadata.get("general.architecture"))
    if name not in FAMILIES:
        raise ModelFormatError(
            f"general.architecture is {name!r}, which is not read from GGUF files, only "
            f"{', '.join(FAMILIES)}; give the model's folder of safetensors"
        )
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise unsupported("general.type", kind, "'model'")
    return name, FAMILIES[name]


def family_options(metadata: Mapping[str, object]) -> dict[str, object]:
    """The keys of the file's architecture, without their prefix, once each of them is known.

    Raises:
        ModelFormatError: A key is unknown, or has a value that is; both are named.
    """
    name, family = family_of(metadata)
    prefix = f"{name}."
    options = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    for key, value in options.items():
        if key in _ONLY and value == _ONLY[key]:
            continue
        if key in _ONLY:
            raise unsupported(prefix + key, value, repr(_ONLY[key]))
        if key not in _COMMON_KEYS | family.keys:
            raise ModelFormatError(
                f"{prefix}{key} is {value!r}, a key that is not known here and could change the "
                "model; give the model's folder of safetensors, or a newer draftsmith"
            )
    return options
