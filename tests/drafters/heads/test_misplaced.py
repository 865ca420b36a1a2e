"""Every key of a head's config.json, wherever it stands, changes the head or is refused."""

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from draftsmith.drafters.heads.files import read_tensors
from draftsmith.drafters.heads.kinds import is_head_config
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.errors import DraftsmithError, ModelFormatError
from tests.drafters.heads import kit
from tests.drafters.heads.layout_kit import LAYOUTS, altered, parts, read_as

KEYS = (
    *("aux_hidden_state_layer_ids", "block_size", "causal", "confidence_head_with_markov"),
    *("draft_vocab_size", "dspark_bonus_anchor", "eagle_aux_hidden_state_layer_ids"),
    *("eagle_config", "enable_confidence_head", "fc_norm", "head_dim", "hidden_act"),
    *("hidden_size", "intermediate_size", "is_causal", "layer_types", "markov_head_type"),
    *("markov_rank", "mask_token_id", "max_position_embeddings", "medusa_num_heads"),
    *("norm_before_fc", "norm_before_residual", "norm_output", "num_attention_heads"),
    *("num_heads", "num_hidden_layers", "num_key_value_heads", "num_target_layers"),
    *("original_lm_head", "parallel_drafting", "pard_token", "partial_rotary_factor"),
    *("projector_type", "ptd_token_id", "quantization_config", "rms_norm_eps"),
    *("rope_parameters", "rope_scaling", "rope_theta", "rope_type", "sample_from_anchor"),
    *("sliding_window", "speculators_config", "target_hidden_size", "target_layer_ids"),
    *("transformer_layer_config", "use_aux_hidden_state", "vocab_size", "factor", "odd"),
)
"""Of all kinds."""
VALUES = ("odd", 7, True, [1])
"""What a reader that looks at the key cannot all take for what is there already."""
OF_THE_TARGET = {"hidden_size", "intermediate_size", "max_position_embeddings", "vocab_size"}
"""What the files may also say of the target, which its own files say."""
WHOLE = {"auto_map", "quantization_config"}
"""Names of another library's classes, and what is compared whole."""
LARGE = (10_000, 10**9, 2**31 - 1, 2**70)


def written(folder: Path, name: str) -> dict[str, Any]:
    LAYOUTS[name](folder)
    return json.loads((folder / "config.json").read_text())


def is_passed_over(folder: Path, others: list[dict[str, Any]], same: object) -> bool:
    """Whether a head stays the same, whatever its config.json says in these places."""
    for keys in others:
        try:
            if read_as(folder, keys) != same:
                return False
        except DraftsmithError:
            return False
    return True


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_key_is_passed_over_wherever_it_stands(tmp_path: Path, name: str) -> None:
    keys = written(tmp_path / "head", name)
    same = read_as(tmp_path / "head", keys)
    places = dict.fromkeys(
        [
            *parts({k: v for k, v in keys.items() if k not in WHOLE}),
            *(("dflash_config",), ("dspark_config",), ("eagle_config",)),
        ]
    )
    passed_over = [
        (path, key)
        for path in places
        for key in KEYS
        if path[-1:] != ("verifier",) or key not in OF_THE_TARGET
        if is_passed_over(tmp_path / "head", [altered(keys, path, key, v) for v in VALUES], same)
    ]
    assert passed_over == []


@pytest.mark.parametrize(
    ("name", "path", "key", "value", "message"),
    [
        ("block-z-lab", ("dflash_config",), "rope_theta", 5.0, "dflash_config.rope_theta .*move"),
        (
            "block-speculators",
            ("transformer_layer_config",),
            "mask_token_id",
            3,
            "_token_id .*move",
        ),
        ("block-speculators", (), "hidden_size", 64, "hidden_size is 64 at the top and 32 in"),
        ("block-speculators", (), "transformer_layer_config", 5, "_config is 5, no JSON object"),
        ("block-z-lab", (), "dflash_config", [], r"dflash_config is \[\], no JSON object"),
        ("block-z-lab", (), "num_target_layers", 7, "is 7, and the target has 6 layers"),
        (
            "block-speculators",
            ("speculators_config",),
            "block_size",
            3,
            r"the key speculators_config.block_size \(3\)",
        ),
        ("eagle3-speculators", ("eagle_config",), "norm_output", True, "norm_output .*move"),
        ("eagle3-speculators", (), "rope_theta", 5.0, "rope_theta is 5.0 at the top"),
        ("eagle3-SafeAI", (), "num_hidden_layers", 2, "is 2, and the tensors are those of 1"),
        ("eagle3-SafeAI", (), "layer_types", ["sliding_attention"], "layer_types is .*sliding"),
        ("eagle3-SpecForge", (), "target_layer_ids", [0, 1, 2], "name other layers: .*1, 2, 3"),
        (
            "eagle3-speculators",
            ("transformer_layer_config", "rope_parameters"),
            "partial_rotary_factor",
            0.5,
            "partial_rotary_factor 0.5, which the scaling default does not read",
        ),
        ("p-eagle-vllm", (), "parallel_drafting", "no", "parallel_drafting is 'no' beside pard"),
        ("p-eagle-vllm", ("eagle_config",), "pard_token", 9, "the key eagle_config.pard_token"),
        ("medusa-vllm", (), "medusa_vocab_size", 50, "two things of the target's ids"),
        (
            "medusa-speculators",
            ("speculators_config",),
            "num_heads",
            5,
            "the key speculators_config.num_heads",
        ),
    ],
)
def test_what_stands_in_the_wrong_part_is_named(
    tmp_path: Path, name: str, path: tuple[str, ...], key: str, value: object, message: str
) -> None:
    keys = written(tmp_path / "head", name)
    with pytest.raises(ModelFormatError, match=message) as refusal:
        read_as(tmp_path / "head", altered(keys, path, key, value))
    assert "\n" not in str(refusal.value)


def test_two_keys_of_the_scaling_that_differ_are_refused(tmp_path: Path) -> None:
    keys = written(tmp_path / "head", "eagle3-SafeAI")
    scaling = {"rope_type": "default", "type": "yarn", "factor": 2.0}
    with pytest.raises(ModelFormatError, match="rope_type is 'default' and type 'yarn'"):
        read_as(tmp_path / "head", {**keys, "rope_scaling": scaling})


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_huge_count_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    keys = written(tmp_path / "head", name)
    counts = [
        (path, key)
        for path in parts(keys)
        for key, value in _part(keys, path).items()
        if type(value) is int
    ]
    made: list[int] = []
    arange = torch.arange

    def counted(*given: Any, **options: Any) -> torch.Tensor:
        made.append(max(one for one in given if isinstance(one, int)))
        assert made[-1] < 10_000, "a table as long as a file says"
        return arange(*given, **options)

    monkeypatch.setattr(torch, "arange", counted)
    assert counts
    read_as(tmp_path / "head", keys)
    tracemalloc.start()
    for path, key in counts:
        for value in LARGE:
            with contextlib.suppress(DraftsmithError):
                read_as(tmp_path / "head", altered(keys, path, key, value))
            # At once, for the next is larger.
            assert tracemalloc.get_traced_memory()[1] < 4_000_000, (path, key, value)
    tracemalloc.stop()


def _part(keys: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        keys = keys[key]
    return keys


def test_positions_beyond_any_text_cost_nothing(tmp_path: Path) -> None:
    keys = written(tmp_path / "head", "eagle3-SafeAI")
    read_as(tmp_path / "head", {**keys, "max_position_embeddings": 2**31 - 1})
    found, _ = read_eagle3(tmp_path / "head", kit.target())
    assert found.context_length == 2**31 - 1


def test_a_tensor_of_more_numbers_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1).expand(10**12)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"'fc.weight' of \[1000000000000\] and fewer"):
        read_tensors(tmp_path)


LAYERS: dict[str, Any] = {"num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 32}


@pytest.mark.parametrize(
    ("keys", "is_head"),
    [
        ({"architectures": ["LlamaForCausalLM"], "dflash_config": {}, **LAYERS}, False),
        ({"dflash_config": {}, "dspark_config": {}, **LAYERS}, False),
        ({"architectures": ["DFlashDraftModel"], "dflash_config": {}}, True),
        ({"architectures": ["LlamaForCausalLM"], "dflash_config": {"block_size": 8}}, True),
        ({"architectures": ["MedusaLlamaForCausalLM"], "medusa_num_heads": 3, **LAYERS}, False),
        ({"model_type": "llama", "medusa_num_heads": 3, **LAYERS}, False),
        ({"architectures": ["MedusaLlamaForCausalLM"], "medusa_num_heads": 3}, True),
        ({"model_type": "medusa", **LAYERS}, True),
        ({"architectures": ["MedusaModel"], "hidden_size": 4096, "num_heads": 5}, True),
    ],
)
def test_a_whole_model_is_no_head(keys: dict[str, Any], is_head: bool) -> None:
    assert is_head_config(keys) is is_head
