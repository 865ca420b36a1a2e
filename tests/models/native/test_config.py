"""A decoder's shape, read from config.json."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.config import decoder_config_from_json
from draftsmith.models.native.rotary import scaled_rotary

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 256,
}
QWEN2 = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2}
SLIDING = {"use_sliding_window": True, "sliding_window": 8}


# --- rotary embeddings ------------------------------------------------------------------------

SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 512},
    {"rope_type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25},
]


@pytest.mark.parametrize("options", SCALINGS)
@pytest.mark.parametrize("theta", [500.0, 1e6])
def test_frequencies_are_those_of_transformers_bit_by_bit(
    options: dict[str, Any], theta: float
) -> None:
    size: dict[str, Any] = {
        "hidden_size": 256,
        "num_attention_heads": 2,
        "max_position_embeddings": 2048,
    }
    config = transformers.LlamaConfig(**size, rope_parameters=options | {"rope_theta": theta})
    expected, scale = ROPE_INIT_FUNCTIONS[options["rope_type"]](config)
    ours = scaled_rotary(theta, 128, 2048, options)
    assert torch.equal(ours.inverse_frequencies, expected)
    assert ours.scale == scale


def test_unscaled_frequencies_are_powers_of_the_base() -> None:
    rotary = scaled_rotary(16.0, 8, 100, {})
    assert rotary.inverse_frequencies.tolist() == [1.0, 0.5, 0.25, 0.125]
    assert rotary.scale == 1.0


@pytest.mark.parametrize(
    "old",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 500.0, "rope_scaling": None},
    ],
)
def test_old_and_new_rope_keys_mean_the_same(old: dict[str, Any]) -> None:
    scaling = old.get("rope_scaling") or {}
    new = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"} | scaling}
    if scaling:
        new["rope_parameters"]["rope_type"] = scaling["type"]
    one, two = (decoder_config_from_json(LLAMA | rope) for rope in (old, new))
    assert torch.equal(one.rotary.inverse_frequencies, two.rotary.inverse_frequencies)
    assert one.rotary.inverse_frequencies[0] == (0.5 if scaling else 1.0)


# --- config.json ------------------------------------------------------------------------------


def test_a_config_of_transformers_is_read() -> None:
    saved = json.loads(
        transformers.Qwen3Config(
            vocab_size=100,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            eos_token_id=[3, 4],
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ).to_json_string()
    )
    config = decoder_config_from_json(saved)
    assert (config.architecture, config.num_layers, config.hidden_size) == ("qwen3", 3, 64)
    assert (config.num_heads, config.num_kv_heads, config.head_size) == (4, 2, 32)
    assert (config.intermediate_size, config.vocab_size) == (96, 100)
    assert (config.context_length, config.norm_epsilon) == (32768, 1e-5)
    assert config.windows == (None, None, None)
    assert config.eos_token_ids == (3, 4)
    assert (config.biases, config.normalises_heads, config.is_tied) == ((), True, True)


def test_a_short_config_takes_the_defaults_of_its_family() -> None:
    config = decoder_config_from_json(LLAMA)
    assert (config.num_kv_heads, config.head_size, config.eos_token_ids) == (4, 16, (2,))
    assert not config.is_tied
    qwen = decoder_config_from_json(QWEN2)
    assert (qwen.eos_token_ids, qwen.biases) == ((), ("query", "key", "value"))


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 5}, None, (5,)),
        ({"eos_token_id": 5}, {"eos_token_id": [5, 6]}, (5, 6)),
        ({"eos_token_id": [5, 6]}, {}, (5, 6)),
        ({"eos_token_id": None}, {}, ()),
        ({"eos_token_id": -1}, {}, ()),
        ({"eos_token_id": 5}, {"eos_token_id": [-1, 6]}, (6,)),
    ],
)
def test_generation_config_knows_the_end_of_text_better(
    config: dict[str, Any], generation: Mapping[str, object] | None, expected: tuple[int, ...]
) -> None:
    assert decoder_config_from_json(LLAMA | config, generation).eos_token_ids == expected


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LLAMA | {"sliding_window": 8}, (None, None, None)),
        (QWEN2 | {"model_type": "mistral", "sliding_window": 8}, (8, 8, 8)),
        (QWEN2 | {"model_type": "mistral", "sliding_window": None}, (None, None, None)),
        (QWEN2 | {"model_type": "mistral"}, (4096, 4096, 4096)),
        (QWEN2 | {"sliding_window": 8}, (None, None, None)),
        (QWEN2 | SLIDING, (None, None, None)),
        (QWEN2 | SLIDING | {"max_window_layers": 2}, (None, None, 8)),
        (QWEN2 | SLIDING | {"max_window_layers": 0}, (8, 8, 8)),
        (
            QWEN2 | SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * 2}
            | {"num_hidden_layers": 4},
            (8, None, 8, None),
        ),
    ],
)  # fmt: skip
def test_windows_are_those_of_the_family(
    config: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    assert decoder_config_from_json(config).windows == windows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling 'longrope'"),
        ({"rope_scaling": {"type": "linear"}}, "rope scaling has factor None"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope scaling has factor 0"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one a layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "a list of 3"),
        ({"layer_types": ["sliding_attention"] * 3}, "sliding_attention"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"head_dim": 15}, "head size 15"),
        ({"hidden_size": "64"}, "hidden_size '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ({"eos_token_id": True}, "eos_token_id is True"),
    ],
)
def test_what_a_native_decoder_lacks_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message) as caught:
        decoder_config_from_json(LLAMA | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_key_that_is_missing_is_named(key: str) -> None:
    short = {name: value for name, value in LLAMA.items() if name != key}
    with pytest.raises(ModelFormatError, match=f"{key} None"):
        decoder_config_from_json(short)


def test_layer_types_that_slide_need_a_window() -> None:
    types = {"layer_types": ["sliding_attention"] * 3}
    with pytest.raises(ModelFormatError, match="layer_types"):
        decoder_config_from_json(QWEN2 | types)
    with pytest.raises(ModelFormatError, match="chunked_attention"):
        decoder_config_from_json(QWEN2 | SLIDING | {"layer_types": ["chunked_attention"] * 3})
