"""A shape in the keys of transformers is read again as the same, or refused by what is not said."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from draftsmith.errors import DraftsmithError
from draftsmith.models.gguf.positions import gguf_rotary
from draftsmith.models.native.config import DecoderConfig, decoder_config_from_json
from draftsmith.models.native.rotary import scaled_rotary
from draftsmith.models.native.write import config_json

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "eos_token_id": [1, 7],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def shape(**keys: Any) -> DecoderConfig:
    return decoder_config_from_json({"model_type": "llama", **BASE, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"attention_bias": True, "tie_word_embeddings": True, "eos_token_id": None},
        {"rope_scaling": LLAMA3, "rope_theta": 5e5},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "head_dim": 16},
        {"model_type": "mistral", "sliding_window": 9, "num_key_value_heads": 2},
        {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 2},
        {"model_type": "qwen2", "num_key_value_heads": 2},
        {
            "model_type": "qwen3",
            "num_key_value_heads": 1,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 2,
            "attention_bias": True,
        },
    ],
)
def test_what_is_written_is_read_again(keys: dict[str, Any]) -> None:
    config = shape(**keys)
    read = decoder_config_from_json(config_json(config, torch.bfloat16, "it"))
    for field in fields(config):
        one, other = getattr(config, field.name), getattr(read, field.name)
        if field.name == "rotary":
            assert torch.equal(one.inverse_frequencies, other.inverse_frequencies)
            assert one.scale == other.scale
        else:
            assert one == other, field.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "phi3"}, "it has architecture 'phi3'"),
        ({"activation": "gelu"}, "hidden_act is 'gelu'"),
        ({"biases": ("gate", "up")}, r"it has biases \('gate', 'up'\)"),
        ({"windows": (4, None, 4)}, r"it has windows \(4, None, 4\)"),
        ({"normalises_heads": True}, "it has normalises_heads True"),
    ],
)
def test_what_cannot_be_said_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DraftsmithError, match=message) as refusal:
        config_json(replace(shape(), **changes), torch.bfloat16, "it")
    assert "\n" not in str(refusal.value)


def test_frequencies_of_a_file_s_own_are_named() -> None:
    factors = {"rope_freqs.weight": torch.tensor([1.0, 1.0, 2.0, 4.0])}
    for keys, read in (
        ({}, factors.get),
        ({"rope.scaling.attn_factor": 1.5}, dict[str, torch.Tensor]().get),
    ):
        rotary, _ = gguf_rotary(keys, 8, 128, read)
        with pytest.raises(DraftsmithError, match="it has rotary positions 'frequencies of its"):
            config_json(replace(shape(), rotary=rotary), torch.bfloat16, "it")
    plain, _ = gguf_rotary({"rope.freq_base": 5e5}, 8, 128, dict[str, torch.Tensor]().get)
    found = config_json(replace(shape(), rotary=plain), torch.bfloat16, "it")
    assert found["rope_theta"] == 5e5
    wanted = scaled_rotary(5e5, 8, 128, {}).inverse_frequencies
    assert torch.equal(decoder_config_from_json(found).rotary.inverse_frequencies, wanted)
