"""What each rank reads: its own part of every tensor, and the model once they are joined."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.gguf_models import FAMILIES, FORMATS, write_model

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels import matrix
from draftsmith.kernels.matrix import Matrix, num_bytes
from draftsmith.kernels.stand_ins import converted, held_format, stored_block
from draftsmith.models.contract import Rows
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.native import shards
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.gpu_weights import on_gpu
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.shards import Part, num_shard_ids, shard_config
from draftsmith.models.native.stored import StoredTensor
from draftsmith.models.native.weights import DecoderWeights
from tests.models.native.parts import joined, matrices, summed_logits
from tests.models.native.test_decoder import MODELS, lively

Whole = tuple[DecoderConfig, DecoderWeights]
AVAILABLE = "draftsmith.models.native.read.available_memory"
FILES = [
    ("llama", "Q4_K"),
    ("llama", "IQ4_NL"),
    ("llama with biases", "Q6_K"),
    ("qwen2", "Q8_0"),
    ("qwen3", "F16"),
    ("granite", "IQ4_XS"),
    ("phi3", "Q4_K"),
    ("gemma", "BF16"),
    ("gemma2", "Q3_K"),
    ("gemma3", "Q5_1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of tiny models, each written once."""
    written: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in written:
            written[name] = tmp_path_factory.mktemp("saved")
            kind, changes = MODELS[name]
            lively(kind, **changes).save_pretrained(written[name])
        return written[name]

    return get


def parts_of(path: Path, size: int, format: str | None = None) -> list[DecoderWeights]:
    return [read(path, format, Part(rank, size))[1] for rank in range(size)]


def read(path: Path, format: str | None = None, part: Part | None = None) -> Whole:
    return read_folder(path, format, part) if path.is_dir() else read_gguf(path, format, part)


def text(config: DecoderConfig) -> list[int]:
    return [(7 * i * i + 3 * i + 5) % config.vocab_size for i in range(40)]


def logits(config: DecoderConfig, weights: DecoderWeights) -> torch.Tensor:
    model = TorchDecoder.from_weights(weights, config)
    cache = model.open_cache()
    return model.forward(cache, Rows([cache.add()], [text(config)]))[0]


def check_joined(whole: Whole, parts: list[DecoderWeights]) -> None:
    config, weights = whole
    expected, found = matrices(weights), joined(parts, config)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def check_sums(whole: Whole, parts: list[DecoderWeights]) -> None:
    expected = logits(*whole)
    error = (summed_logits(parts, whole[0], text(whole[0])) - expected).abs().max()
    assert error <= 1e-4 * expected.abs().max()


# --- the model, put together again ------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_the_parts_of_a_folder_are_the_model(
    folder: Callable[..., Path], name: str, size: int
) -> None:
    whole, parts = read(folder(name)), parts_of(folder(name), size)
    check_joined(whole, parts)
    check_sums(whole, parts)
    assert all((part.head is part.embedding) == whole[0].is_tied for part in parts)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("family", "format"), FILES)
def test_the_parts_of_a_gguf_file_are_the_model(
    tmp_path: Path, family: str, format: str, size: int
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES[family], format)
    whole, parts = read(path), parts_of(path, size)
    check_joined(whole, parts)
    check_sums(whole, parts)
    assert all((part.head is part.embedding) == whole[0].is_tied for part in parts)


def test_parts_are_the_model_without_the_compiled_kernels(
    tmp_path: Path, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama with biases"], "Q4_K")
    monkeypatch.setattr(matrix, "library", lambda: None)
    for one in (path, folder("llama, wide heads")):
        check_joined(read(one), parts_of(one, 2))
        check_sums(read(one), parts_of(one, 2))


@pytest.mark.parametrize("vocab_size", [97, 5])
def test_the_last_ranks_have_zeros_beyond_the_vocabulary(tmp_path: Path, vocab_size: int) -> None:
    lively("llama", vocab_size=vocab_size).save_pretrained(tmp_path)
    whole, parts = read(tmp_path), parts_of(tmp_path, 4)
    rows = num_shard_ids(vocab_size, 4)
    assert {part.embedding.num_outputs for part in parts} == {rows}
    assert {part.head.num_outputs for part in parts} == {rows}
    check_joined(whole, parts)
    check_sums(whole, parts)


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_of_zeros_are_zeros_in_every_format(tmp_path: Path, format: str) -> None:
    block = stored_block(format)
    (tmp_path / "file").write_bytes(b"\x01" * block.num_bytes)
    size = (1, block.num_weights)
    tensor = StoredTensor("table", format, size, tmp_path / "file", 0, block.num_bytes)
    spare = tensor.some_rows("table", 1, 2)
    raw = np.concatenate([converted(part, format, "table") for part in spare.parts()])
    packed = Matrix.pack(raw, held_format("table", format), 2, block.num_weights)
    assert not packed.dequantise().any()


def test_one_rank_has_all(tmp_path: Path, folder: Callable[..., Path]) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "Q4_0")
    for one in (path, folder("qwen2")):
        check_joined(read(one), parts_of(one, 1))


def test_a_rank_with_another_ranks_keys_is_caught(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_turns(whole: int, own: int, part: Part) -> int:
        return part.rank * own % whole

    monkeypatch.setattr(shards, "_first", by_turns)
    whole, parts = read(folder("llama")), parts_of(folder("llama"), 4)
    for check in (check_joined, check_sums):
        with pytest.raises(AssertionError):
            check(whole, parts)


# --- formats ----------------------------------------------------------------------------------


def formats(weights: DecoderWeights) -> tuple[str, ...]:
    layer = weights.layers[0]
    fields = (layer.query, layer.output, layer.gate, layer.down)
    return (weights.head.format, *(one.matrix.format for one in fields))


def test_a_cut_within_blocks_is_held_in_float_and_others_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "Q4_K")
    # Blocks of 256: outputs have 256 columns and downs 512.
    assert formats(parts_of(path, 2)[1]) == ("Q4_K", "Q4_K", "F32", "Q4_K", "Q4_K")
    assert formats(parts_of(path, 4)[1]) == ("Q4_K", "Q4_K", "F32", "Q4_K", "F32")
    assert formats(parts_of(path, 4, "BF16")[1]) == ("BF16",) * 5


def test_values_are_not_rounded_again_where_their_own_format_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = replace(FAMILIES["llama"], head_size=24)
    write_model(path, model, "Q8_0")
    parts = parts_of(path, 4, "Q8_0")
    assert formats(parts[0]) == ("Q8_0", "Q8_0", "F32", "Q8_0", "Q8_0")
    check_joined(read(path, "Q8_0"), parts)


def test_a_part_is_converted_as_the_whole(tmp_path: Path, folder: Callable[..., Path]) -> None:
    check_joined(read(folder("qwen3"), "F16"), parts_of(folder("qwen3"), 2, "F16"))
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "BF16")
    check_joined(read(path, "Q8_0"), parts_of(path, 4, "Q8_0"))
    with pytest.raises(ModelFormatError, match=r"rank 0's part of tensor '.*o_proj.* 16 weights"):
        read(folder("llama"), "Q8_0", Part(0, 2))


# --- what is read -----------------------------------------------------------------------------


def bytes_read(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> int:
    counts: list[int] = []
    plain = os.preadv

    def counted(*arguments: Any) -> int:
        counts.append(plain(*arguments))
        return counts[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", counted)
        action()
    return sum(counts)


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_reads_its_own_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "F16")
    config, weights = read(path)
    total = bytes_read(monkeypatch, lambda: read(path))
    vectors = 4 * config.hidden_size * (1 + 2 * config.num_layers)
    keys = sum(one.key.matrix.num_bytes + one.value.matrix.num_bytes for one in weights.layers)
    for rank in range(size):
        own = bytes_read(monkeypatch, lambda rank=rank: read(path, None, Part(rank, size)))
        shared = keys / config.num_kv_heads if size > config.num_kv_heads else keys / size
        assert own == vectors + shared + (total - vectors - keys) / size


def test_a_rank_needs_memory_for_its_own_part_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES["llama"], "Q4_K")
    for part in (None, Part(1, 2), Part(3, 4)):
        weights = read(path, None, part)[1]
        held = [weights.embedding, weights.head] + [
            getattr(layer, field).matrix
            for layer in weights.layers
            for field in ("query", "key", "value", "output", "gate", "up", "down")
        ]
        needed = sum(vector.nbytes for vector in matrices(weights).values() if vector.ndim == 1)
        needed += sum(num_bytes(one.format, one.num_outputs * one.num_inputs) for one in held)
        monkeypatch.setattr(AVAILABLE, lambda needed=needed: needed)
        read(path, None, part)
        monkeypatch.setattr(AVAILABLE, lambda needed=needed: needed - 1)
        with pytest.raises(ModelFormatError, match="of memory"):
            read(path, None, part)
        monkeypatch.undo()


def test_columns_of_a_file_that_ends_early_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(np.arange(32, dtype=np.float32).tobytes())
    tensor = StoredTensor("down", "F32", (4, 8), path, 0, 128)
    half = tensor.some_columns(4, 4, stored_block("F32"))
    assert half.tensor().tolist() == [[8 * row + 4 + i for i in range(4)] for row in range(4)]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelFormatError, match=r"truncated: it ends within tensor 'down'"):
        half.tensor()


def test_a_gpu_has_its_own_part_alone(folder: Callable[..., Path]) -> None:
    config = read(folder("llama, biases"))[0]
    for rank, part in enumerate(parts_of(folder("llama, biases"), 4)):
        shard = shard_config(config, Part(rank, 4))
        held = on_gpu(part, torch.device("cpu"), torch.float32)
        layer, tensors = held.layers[1], matrices(part)
        heads = shard.num_heads + 2 * shard.num_kv_heads
        assert layer.inputs.shape == (heads * shard.head_size, config.hidden_size)
        inputs = [tensors[f"1.{name}"] for name in ("query", "key", "value")]
        assert torch.equal(layer.inputs, torch.cat(inputs))
        biases = [tensors[f"1.{name}.bias"] for name in ("query", "key", "value")]
        assert layer.inputs_bias is not None
        assert torch.equal(layer.inputs_bias, torch.cat(biases))
        assert layer.gate_and_up.shape == (2 * shard.intermediate_size, config.hidden_size)
        assert layer.down.shape == (config.hidden_size, shard.intermediate_size)
        assert torch.equal(layer.output, tensors["1.output"])
        assert torch.equal(held.head, tensors["head"])


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        (3, {}, "num_heads is 4, which 3 ranks cannot share: take 1, 2, 4 of them"),
        (8, {}, "num_heads is 4, which 8 ranks"),
        (2, {"num_heads": 6, "num_kv_heads": 3}, "num_kv_heads is 3, .*: take 1 of them"),
        (6, {"num_heads": 6, "num_kv_heads": 3}, "intermediate_size is 64, .*: take 1 of them"),
        (4, {"intermediate_size": 66}, "intermediate_size is 66, .*: take 1, 2 of them"),
    ],
)
def test_what_ranks_cannot_share_is_named(
    folder: Callable[..., Path], size: int, changes: dict[str, int], message: str
) -> None:
    config = replace(read(folder("llama"))[0], **changes)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        shard_config(config, Part(0, size))
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_cut_is_refused_before_it_is_read(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt() -> None:
        with pytest.raises(InvalidRequestError, match="num_heads is 4"):
            read(folder("llama"), None, Part(0, 3))

    assert bytes_read(monkeypatch, attempt) == 0


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [(2, 2, "rank must be between 0 and 1, got 2"), (-1, 2, "got -1"), (0, 0, "size must be 1")],
)
def test_a_rank_that_there_is_not_is_refused(rank: int, size: int, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Part(rank, size)
