"""The shape of a decoder from the metadata of its GGUF file."""

from collections.abc import Collection, Mapping

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.arithmetic import Sizes, arithmetic_of
from draftsmith.models.gguf.families import Family, family_of, family_options
from draftsmith.models.gguf.positions import ReadFactors, gguf_rotary
from draftsmith.models.native.config import (
    DecoderConfig,
    number_option,
    size_option,
    unsupported,
)
from draftsmith.models.native.names import GGUF

__all__ = ["decoder_config_from_gguf"]


def decoder_config_from_gguf(
    metadata: Mapping[str, object],
    vocab_size: int,
    tensor_names: Collection[str],
    read_factors: ReadFactors = lambda name: None,
) -> DecoderConfig:
    """Read the metadata of a GGUF file.

    Args:
        metadata: Keys and values, as `gguf.header.read_header` gives them.
        vocab_size: Rows of the embedding, where the metadata does not say.
        tensor_names: Of all tensors: they tell of biases, and whether the head is tied.
        read_factors: Gives the tensors of rotary factors by name, or None.

    Returns:
        The shape. Where llama.cpp and the model's makers read a file differently from some
        position on (a sliding window that llama.cpp does not apply, longrope's change of
        factors), the context ends there.

    Raises:
        ModelFormatError: If the model is of another kind, or uses a feature that the native
            decoders lack; the message names it.
    """
    kind, family = family_of(metadata)
    options = family_options(metadata)
    _check_layer_arrays(options)
    _check_positions_are_used(kind, options)
    sizes = _sizes(options, family)
    arithmetic = arithmetic_of(kind, options, sizes)
    rotary, context_length = gguf_rotary(
        options,
        sizes.num_turned,
        _context_length(options, is_applied=bool(arithmetic.period)),
        read_factors,
        is_long_by_tensor=family.is_long_by_tensor,
    )
    return DecoderConfig(
        architecture=kind,
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        num_heads=sizes.num_heads,
        num_kv_heads=size_option(options, "attention.head_count_kv", sizes.num_heads),
        head_size=sizes.head_size,
        intermediate_size=size_option(options, "feed_forward_length"),
        vocab_size=size_option(options, "vocab_size", vocab_size),
        context_length=context_length,
        norm_epsilon=number_option(options, "attention.layer_norm_rms_epsilon"),
        rotary=rotary,
        windows=arithmetic.windows(sizes.num_layers),
        eos_token_ids=_eos(metadata),
        biases=_biases(family, tensor_names),
        normalises_heads=family.normalises_heads,
        is_tied=family.is_always_tied or GGUF.head not in tensor_names,
        scales=arithmetic.scales,
        activation=arithmetic.activation,
        normalises_outputs=arithmetic.normalises_outputs,
        local_rotary=arithmetic.local_rotary,
    )


def _check_positions_are_used(kind: str, options: Mapping[str, object]) -> None:
    """In a Granite file, `finetuned` is a switch: without it there are no positions at all."""
    key = "rope.scaling.finetuned"
    if kind == "granite" and options.get(key, True) is not True:
        raise unsupported(f"{kind}.{key}", options[key], "True")


def _sizes(options: Mapping[str, object], family: Family) -> Sizes:
    hidden = size_option(options, "embedding_length")
    heads = size_option(options, "attention.head_count")
    head_size = _head_size(options, hidden, heads)
    turned = _num_turned(options, head_size, may_be_part=family.may_turn_part)
    return Sizes(size_option(options, "block_count"), hidden, heads, head_size, turned)


def _check_layer_arrays(options: Mapping[str, object]) -> None:
    """One value a layer, where there is more than one."""
    num_layers = size_option(options, "block_count")
    for key, value in options.items():
        if isinstance(value, tuple) and len(value) != num_layers:
            raise ModelFormatError(f"{key} has {len(value)} values for {num_layers} layers")


def _head_size(options: Mapping[str, object], hidden: int, heads: int) -> int:
    """A value has as many elements as a key."""
    head_size = size_option(options, "attention.key_length", hidden // heads)
    value_size = size_option(options, "attention.value_length", hidden // heads)
    if value_size != head_size:
        raise unsupported("attention.value_length", value_size, f"a key's, {head_size}")
    return head_size


def _num_turned(options: Mapping[str, object], head_size: int, *, may_be_part: bool) -> int:
    """Elements of a head that are rotated."""
    turned = size_option(options, "rope.dimension_count", head_size)
    if turned != head_size and not (may_be_part and turned < head_size and turned % 2 == 0):
        most = "an even number up to the head size" if may_be_part else "the head size"
        raise unsupported("rope.dimension_count", turned, f"{most}, {head_size}")
    return turned


def _context_length(options: Mapping[str, object], *, is_applied: bool) -> int:
    """Up to a window that llama.cpp passes over and the model's makers do not."""
    length = size_option(options, "context_length")
    if is_applied or not options.get("attention.sliding_window"):
        return length
    return min(length, size_option(options, "attention.sliding_window"))


def _biases(family: Family, tensor_names: Collection[str]) -> tuple[str, ...]:
    """Those of the first layer: a file says nothing else of them."""
    found = (part for part in family.may_have_biases if GGUF.part(0, part, "bias") in tensor_names)
    return (*family.biases, *found)


def _eos(metadata: Mapping[str, object]) -> tuple[int, ...]:
    value = metadata.get("tokenizer.ggml.eos_token_id")
    return (value,) if isinstance(value, int) else ()
