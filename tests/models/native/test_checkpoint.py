"""Safetensors folders: what is read is what was saved, and what is broken is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from draftsmith.errors import ModelFormatError, ModelNotFoundError
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.stored import StoredTensor

INDEX = "model.safetensors.index.json"


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "full": torch.randn(3, 5, generator=generator),
        "half": torch.randn(7, generator=generator).half(),
        "brain": torch.randn(2, 3, 4, generator=generator).bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
    }


def save_shards(folder: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, folder / "one.safetensors")
    save_file({"c": torch.ones(4)}, folder / "two.safetensors")
    write_index(folder, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})


def write_index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_file(folder: Path, header: object, weights: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + weights)


def entry(start: int, end: int, shape: object = None, dtype: str = "F32") -> dict[str, object]:
    shape = [(end - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refusal(folder: Path) -> str:
    with pytest.raises(ModelFormatError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


# --- what is whole ----------------------------------------------------------------------------


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    saved = some_tensors()
    save_file(saved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = open_checkpoint(tmp_path)
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        assert found[name].name == name
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].tensor().dtype == torch.float32
        assert torch.equal(found[name].tensor(), tensor.float())


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    saved = some_tensors()
    save_file(saved, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path)
    assert [found[name].format for name in ("full", "half", "brain")] == ["F32", "F16", "BF16"]
    assert found["brain"].num_bytes == 2 * 24
    raw = found["brain"].read()
    assert np.array_equal(raw, saved["brain"].flatten().view(torch.uint8).numpy())
    assert raw.flags.writeable


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    save_shards(tmp_path)
    found = open_checkpoint(tmp_path)
    assert {name: one.path.name for name, one in found.items()} == {
        "a": "one.safetensors",
        "b": "one.safetensors",
        "c": "two.safetensors",
    }
    assert found["c"].tensor().tolist() == [1.0] * 4


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere is not a folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    assert "holds no model.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "save the model again as safetensors" in refusal(tmp_path)


# --- shards that do not fit ---------------------------------------------------------------------


def without_a_shard(folder: Path) -> None:
    (folder / "two.safetensors").unlink()


def with_an_unlisted_tensor(folder: Path) -> None:
    write_index(folder, {"a": "one.safetensors", "c": "two.safetensors"})


def with_a_tensor_elsewhere(folder: Path) -> None:
    write_index(folder, {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})


def without_a_listed_tensor(folder: Path) -> None:
    save_file({"a": torch.ones(2)}, folder / "one.safetensors")


def with_a_path_for_a_name(folder: Path) -> None:
    write_index(folder, {"a": "../one.safetensors"})


def without_a_weight_map(folder: Path) -> None:
    write_index(folder, None)


def with_a_broken_index(folder: Path) -> None:
    (folder / INDEX).write_text("{")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without_a_shard, r"two\.safetensors is missing"),
        (with_an_unlisted_tensor, r"one\.safetensors.*does not list its tensor 'b'"),
        (with_a_tensor_elsewhere, r"one\.safetensors.*does not list its tensor 'b'"),
        (without_a_listed_tensor, r"one\.safetensors.*tensor 'b' of .* is not in it"),
        (with_a_path_for_a_name, r"'\.\./one\.safetensors', not a file's name"),
        (without_a_weight_map, "no weight_map"),
        (with_a_broken_index, r"index\.json is malformed: not JSON"),
    ],
)
def test_shards_that_do_not_fit_their_index_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    save_shards(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelFormatError, match=why):
        open_checkpoint(tmp_path)


# --- broken files -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 8, 60, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(8)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is truncated" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("header", "num_bytes", "why"),
    [
        (b"nonsense", 8, "not JSON"),
        (b"[" * 100_000, 8, "not JSON"),
        (b'{"\xff": 1}', 8, "not JSON"),
        ([1], 8, "not an object"),
        (b'{"a": 1, "a": 2}', 8, "'a' occurs twice"),
        ({"a": 7}, 8, "tensor 'a' is 7"),
        ({"a": entry(0, 8, dtype="I64")}, 8, "tensor 'a' of dtype 'I64'; save the model as F32"),
        ({"a": entry(0, 8, shape=[-2])}, 8, r"shape [-2]"),
        ({"a": entry(0, 8, shape=[True, 2])}, 8, "shape [True, 2]"),
        ({"a": entry(0, 8, shape="2")}, 8, "shape '2'"),
        ({"a": entry(8, 0, shape=[2])}, 8, "data_offsets [8, 0]"),
        ({"a": entry(0, 8, shape=[3])}, 8, "has 8 bytes, its shape needs 12"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "tensor 'b' overlaps"),
        ({"a": entry(0, 8), "b": entry(12, 16)}, 16, "tensor 'b' leaves a gap"),
        ({"a": entry(0, 8)}, 9, "1 bytes after its last tensor"),
        ({"a": entry(0, 80)}, 9, "has 61 of"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_cause(
    tmp_path: Path, header: object, num_bytes: int, why: str
) -> None:
    write_file(tmp_path, header, bytes(num_bytes))
    message = refusal(tmp_path)
    assert "model.safetensors" in message
    assert why.replace("61", str((tmp_path / "model.safetensors").stat().st_size)) in message


def test_a_header_longer_than_any_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    assert "its header claims" in refusal(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(8)}, path)
    stored: StoredTensor = open_checkpoint(tmp_path)["a"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match="ends within tensor 'a'"):
        stored.read()
