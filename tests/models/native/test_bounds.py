"""What a file claims is held against its tensors, and a reader's fault is a refusal by name."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.bounds import MOST_LAYERS, Extent, check_sizes, extent_of, named_after
from draftsmith.models.native.config import decoder_config_from_json
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.t5_config import parse_t5_config
from tests import tiny
from tests.models.gguf.files import write_gguf

HUGE = 2**31 - 1


def refusal(load: Callable[[], object]) -> str:
    """The message, which comes at once: nothing was built of the claimed size."""
    start = time.monotonic()
    with pytest.raises(ModelFormatError) as caught:
        load()
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        *("block_count", "embedding_length", "feed_forward_length", "attention.head_count"),
        *("attention.head_count_kv", "attention.key_length", "rope.dimension_count"),
    ],
)
def test_a_gguf_that_claims_more_than_its_tensors_have_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, tiny.raw_model("qwen3"))
    data, name = path.read_bytes(), f"qwen3.{key}".encode()
    place = data.find(struct.pack("<Q", len(name)) + name)
    if place < 0:
        pytest.skip("the file leaves it out")
    at = place + 8 + len(name) + 4
    path.write_bytes(data[:at] + struct.pack("<I", HUGE) + data[at + 4 :])
    said = refusal(lambda: load_model(str(path), ModelSettings(device="cpu")))
    assert f"qwen3.{key} is {HUGE}, but" in said
    assert said.startswith(str(path))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("llama", "num_hidden_layers"),
        ("llama", "head_dim"),
        ("llama", "vocab_size"),
        ("qwen2", "intermediate_size"),
        ("mistral-sliding", "num_attention_heads"),
        ("t5", "num_layers"),
        ("t5", "d_ff"),
        ("gpt2", "n_layer"),
        ("gpt2", "n_embd"),
        ("bart", "decoder_layers"),
    ],
)
@pytest.mark.parametrize("value", [5000, HUGE, 10**18])
def test_a_config_that_claims_more_is_refused(
    kind: str, key: str, value: int, tmp_path: Path
) -> None:
    model = tiny.raw_model(kind)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    most = max(parameter.numel() for parameter in model.parameters())
    if value <= most and "layer" not in key:
        pytest.skip("a size that a tensor of this file could have")
    said = refusal(lambda: load_model(f"{tmp_path}/", ModelSettings(device="cpu")))
    assert key in said
    assert str(value) in said


def test_a_header_that_claims_the_whole_of_a_large_file_is_not_read(tmp_path: Path) -> None:
    tiny.raw_model("gpt2").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40 - 8))
    os.truncate(path, 2**40)  # a hole: it takes no disk, and would take a terabyte of memory
    load = lambda: load_model(f"{tmp_path}/", ModelSettings(device="cpu"))  # noqa: E731
    assert "is cut off or no safetensors file" in refusal(load)


def test_layers_are_bounded_where_no_tensor_is_at_hand() -> None:
    llama = tiny.raw_model("llama").config.to_dict() | {"num_hidden_layers": MOST_LAYERS + 1}
    assert "num_hidden_layers 10001; it must be 10000" in refusal(
        lambda: decoder_config_from_json(llama)
    )


def test_read_folder_itself_holds_the_config_against_the_tensors(tmp_path: Path) -> None:
    tiny.raw_model("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 9000}))
    assert "num_hidden_layers is 9000, but the file holds" in refusal(lambda: read_folder(tmp_path))


def test_the_distances_of_a_t5_are_bounded() -> None:
    config = tiny.raw_model("t5").config.to_dict()
    given = config | {"relative_attention_max_distance": 10**12}
    assert "relative_attention_max_distance must be at most 1048576" in refusal(
        lambda: parse_t5_config(given, {})
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -1, True, "1"])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_a_number_that_is_none_is_refused_by_its_key(key: str, value: Any) -> None:
    llama = {**tiny.raw_model("llama").config.to_dict(), "rope_parameters": None}
    said = refusal(lambda: decoder_config_from_json({**llama, key: value}))
    assert key in said or "the base of the rotary positions" in said


def test_sizes_up_to_the_bound_and_what_is_no_number_are_left_alone() -> None:
    extent = extent_of([(3, 4), (4,)])
    assert extent == Extent(2, 12)
    check_sizes({"layers": 2, "width": 12, "odd": "x"}, ["layers", "odd"], ["width", "no"], extent)
    with pytest.raises(ModelFormatError, match="width is 13, but its largest tensor has 12"):
        check_sizes({"width": 13}, [], ["width"], extent)


@pytest.mark.parametrize("fault", [ZeroDivisionError, OverflowError, KeyError, TypeError])
def test_a_readers_fault_is_a_refusal_by_name(fault: type[Exception]) -> None:
    said = rf"^m.gguf cannot be read \({fault.__name__}: ."
    with pytest.raises(ModelFormatError, match=said), named_after(Path("m.gguf")):
        raise fault("of\nthis")


def test_a_name_as_long_as_the_file_makes_no_message_of_that_length() -> None:
    with pytest.raises(ModelFormatError) as caught, named_after(Path("m.gguf")):
        raise ModelFormatError(f"m.gguf has key {'x' * 10**6}; fetch it again")
    assert len(str(caught.value)) <= 1000
    assert str(caught.value).startswith("m.gguf has key xx")
    assert str(caught.value).endswith("xx; fetch it again")


def test_refusals_pass_as_they_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"^mine$"), named_after(Path("m.gguf")):
        raise InvalidRequestError("mine")
