"""A decoder's shape, read from GGUF metadata: honoured, or refused by name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.positions import ReadFactors
from draftsmith.models.gguf.shape import decoder_config_from_gguf
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.rotary import scaled_rotary

GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.feed_forward_length": 128,
    "llama.context_length": 256,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.eos_token_id": 7,
}


def from_gguf(**changes: Any) -> DecoderConfig:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    names = ["token_embd.weight", "output.weight"]
    return decoder_config_from_gguf(GGUF | given, 100, names)


def reading(**factors: Tensor) -> ReadFactors:
    """A file's tensors of rotary factors."""
    return lambda name: factors.get(name.removesuffix(".weight"))


def test_metadata_is_read() -> None:
    config = from_gguf(
        llama__attention__head_count_kv=2,
        llama__rope__freq_base=16.0,
        llama__attention__key_length=8,
        llama__attention__value_length=8,
        llama__rope__dimension_count=8,
        llama__vocab_size=90,
    )
    assert (config.architecture, config.num_layers, config.hidden_size) == ("llama", 3, 64)
    assert (config.num_heads, config.num_kv_heads, config.head_size) == (4, 2, 8)
    assert (config.vocab_size, config.context_length) == (90, 256)
    assert config.rotary.inverse_frequencies.tolist() == [1.0, 0.5, 0.25, 0.125]
    assert (config.windows, config.eos_token_ids) == ((None, None, None), (7,))
    assert not config.is_tied


def test_metadata_may_leave_out_what_follows() -> None:
    config = from_gguf()
    assert (config.num_kv_heads, config.head_size, config.vocab_size) == (4, 16, 100)
    assert config.windows == (None, None, None)


def test_one_value_a_layer_is_read_if_all_are_the_same() -> None:
    assert from_gguf(llama__attention__head_count_kv=(2, 2, 2)).num_kv_heads == 2
    with pytest.raises(ModelFormatError, match=r"head_count_kv \(2, 4, 2\)"):
        from_gguf(llama__attention__head_count_kv=(2, 4, 2))


def test_rope_factors_divide_the_frequencies() -> None:
    factors = torch.tensor([1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0])
    with_factors = decoder_config_from_gguf(GGUF, 100, [], reading(rope_freqs=factors))
    plain = decoder_config_from_gguf(GGUF, 100, [])
    frequencies = plain.rotary.inverse_frequencies / factors
    assert torch.equal(with_factors.rotary.inverse_frequencies, frequencies)
    with pytest.raises(ModelFormatError, match=r"'rope_freqs\.weight' has shape"):
        decoder_config_from_gguf(GGUF, 100, [], reading(rope_freqs=factors[:4]))


def test_a_yarn_file_is_a_yarn_config() -> None:
    file = from_gguf(
        llama__rope__scaling__type="yarn",
        llama__rope__scaling__factor=4.0,
        llama__rope__scaling__original_context_length=64,
        llama__rope__scaling__finetuned=True,
    )
    options = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    expected = scaled_rotary(10_000.0, 16, 256, options)
    assert torch.equal(file.rotary.inverse_frequencies, expected.inverse_frequencies)
    assert file.rotary.scale == expected.scale > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "general.architecture is 'mamba'"),
        ({"llama__attention__clamp_kqv": 8.0}, "llama.attention.clamp_kqv"),
        ({"llama__expert_count": 8}, "llama.expert_count"),
        ({"llama__rope__scaling__type": "longrope"}, r"lacks tensor 'rope_factors_long\.weight'"),
        ({"llama__rope__scaling__type": "dynamic"}, r"rope\.scaling\.type is 'dynamic'"),
        ({"llama__some__new_key": 1}, r"llama\.some\.new_key is 1, a key that is not known"),
        (
            {"llama__rope__dimension_count": 8, "llama__attention__key_length": 16},
            "rope.dimension_count is 8",
        ),
        ({"llama__attention__value_length": 8}, "value_length"),
        ({"llama__block_count": "3"}, "block_count '3'"),
        ({"llama__attention__layer_norm_rms_epsilon": None}, "rms_epsilon None"),
    ],
)  # fmt: skip
def test_metadata_that_a_native_decoder_lacks_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message) as caught:
        from_gguf(**changes)
    assert "\n" not in str(caught.value)
