import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.errors import ModelFormatError, ModelNotFoundError
from draftsmith.models.gguf.header import GgufSummary, check_gguf, list_tensors, read_header

VOCAB = [b"a", b"bc", "é".encode(), b""]


def write_gguf(path: Path, num_tensors: int = 3, extra: dict[str, int] | None = None) -> Path:
    """Write a tiny model: metadata of every kind, float and quantised tensors."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(64)
    writer.add_license("mit")
    writer.add_bool("tiny.flag", True)
    writer.add_float64("tiny.double", 0.5)
    writer.add_token_list(VOCAB)
    writer.add_token_types([1, 1, 1, 3])
    for key, value in (extra or {}).items():
        writer.add_uint16(key, value)
    tensors = [
        (np.zeros((4, 8), np.float32), None),
        (np.zeros((4, 34), np.uint8), GGMLQuantizationType.Q8_0),
        (np.zeros(5, np.float16), None),
    ]
    for number, (tensor, kind) in enumerate(tensors[:num_tensors]):
        writer.add_tensor(f"tensor.{number}", tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for files that are written anew by every example."""
    return tmp_path_factory.mktemp("gguf") / "damaged.gguf"


def assert_refused_or_read(path: Path) -> None:
    """The check may do one of two things; any third exception fails the test."""
    message = ""
    try:
        assert check_gguf(path).num_tensors >= 1
    except ModelFormatError as error:
        message = str(error)
    assert not message or message.startswith(str(path))
    assert "\n" not in message


def test_a_whole_file_is_summarised(tiny: Path):
    assert check_gguf(tiny) == GgufSummary(
        architecture="llama",
        name="Tiny",
        num_tensors=3,
        num_parameters=4 * 8 + 4 * 32 + 5,
        context_length=64,
        vocab_size=4,
        quantisations={"F32": 1, "Q8_0": 1, "F16": 1},
        num_bytes=tiny.stat().st_size,
        license="mit",
    )


def test_metadata_is_kept_but_for_the_vocabulary(tmp_path: Path):
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_float64("tiny.double", 0.5)
    writer.add_head_count_kv([2, 4])
    writer.add_token_list(VOCAB)
    writer.add_token_scores([0.5] * 1025)
    writer.add_tensor("tensor", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "model.gguf")
    assert header.values == {
        "general.architecture": "llama",
        "tiny.double": 0.5,
        "llama.attention.head_count_kv": (2, 4),
    }
    assert header.tensors == list_tensors(tmp_path / "model.gguf")


def test_the_summary_equals_the_slow_readers(tiny: Path):
    reader, summary = GGUFReader(tiny), check_gguf(tiny)
    assert summary.num_tensors == len(reader.tensors)
    assert summary.num_parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert summary.quantisations == Counter(tensor.tensor_type.name for tensor in reader.tensors)
    assert summary.vocab_size == len(reader.fields["tokenizer.ggml.tokens"].data)


def test_the_models_own_vocabulary_size_comes_first(tmp_path: Path):
    path = write_gguf(tmp_path / "padded.gguf", extra={"llama.vocab_size": 8})
    assert check_gguf(path).vocab_size == 8


def test_the_last_byte_of_the_last_tensor_is_needed(tiny: Path, tmp_path: Path):
    tensor = GGUFReader(tiny).tensors[-1]
    end = int(tensor.data_offset) + int(tensor.n_bytes)
    content = tiny.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[:end])
    check_gguf(path)
    path.write_bytes(content[: end - 1])
    with pytest.raises(ModelFormatError, match=rf"truncated: it has {end - 1} of {end} bytes"):
        check_gguf(path)


@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_is_refused_or_read(tiny: Path, damaged: Path, share: float):
    content = tiny.read_bytes()
    damaged.write_bytes(content[: int(share * len(content))])
    assert_refused_or_read(damaged)


@given(data=st.data())
def test_a_file_with_one_byte_changed_is_refused_or_read(
    tiny: Path, damaged: Path, data: st.DataObject
):
    content = bytearray(tiny.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    damaged.write_bytes(content)
    assert_refused_or_read(damaged)


@given(tail=st.binary(max_size=200), version=st.sampled_from([2, 3]))
def test_noise_behind_a_good_magic_is_refused(damaged: Path, tail: bytes, version: int):
    damaged.write_bytes(b"GGUF" + struct.pack("<I", version) + tail)
    with pytest.raises(ModelFormatError):
        check_gguf(damaged)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; fetch it again"),
        (b"GG", "not a GGUF file"),
        (b"version https://git-lfs", "not a GGUF file: it begins with b'vers'"),
        (b"GGUF", "truncated"),
        (b"GGUF" + struct.pack("<I", 1), "is GGUF version 1; convert it"),
        (b"GGUF" + struct.pack(">I", 3), "is big-endian GGUF; convert it"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), r"names no general\.architecture"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 63), "truncated"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 99), "unknown value type 99"),
        (b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "array 'k' has unknown"),
        (b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 8, 5), "ends within its header"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"\xff", 0), "not UTF-8"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 1, 0, 1, b"t", 9), "has 9 dimensions"),
        (b"GGUF" + struct.pack("<IQQQcIQIQ", 3, 1, 0, 1, b"t", 1, 1, 999, 0), "unknown type 999"),
        (b"GGUF" + struct.pack("<IQQQcIQIQ", 3, 1, 0, 1, b"t", 1, 31, 8, 0), "no whole blocks"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=words) as caught:
        check_gguf(path)
    assert str(path) in str(caught.value)


def test_a_vocabulary_without_a_model_is_refused(tmp_path: Path):
    path = write_gguf(tmp_path / "vocabulary.gguf", num_tensors=0)
    with pytest.raises(ModelFormatError, match="only a vocabulary"):
        check_gguf(path)


def split_model(folder: Path, *, count: int = 3, num_tensors: int = 3) -> Path:
    """A model in three files: the metadata in the first, a tensor in each."""
    for number in range(3):
        writer = GGUFWriter(folder / f"m-{number + 1:05d}-of-{count:05d}.gguf", "llama")
        if not number:
            writer.add_name("Split")
            writer.add_token_list(VOCAB)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", num_tensors)
        writer.add_tensor(f"tensor.{number}", np.full((4, 8), number, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / f"m-00001-of-{count:05d}.gguf"


def test_a_split_model_is_one_model(tmp_path: Path):
    path = split_model(tmp_path)
    summary, header = check_gguf(path), read_header(path)
    assert (summary.name, summary.num_tensors, summary.vocab_size) == ("Split", 3, 4)
    assert summary.num_bytes == sum(part.stat().st_size for part in tmp_path.iterdir())
    for number, tensor in enumerate(header.tensors):
        assert tensor.path.name == f"m-{number + 1:05d}-of-00003.gguf"
        values = np.fromfile(tensor.path, np.float32, 32, offset=tensor.offset)
        assert (values == number).all()


def test_a_part_that_is_missing_is_named(tmp_path: Path):
    path = split_model(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match=r"m-00002-of-00003\.gguf, which is part 2 of 3"):
        check_gguf(path)


def test_only_the_first_part_stands_for_the_model(tmp_path: Path):
    split_model(tmp_path)
    with pytest.raises(ModelFormatError, match=r"part 2 of 3; give the first, m-00001-of-00003"):
        check_gguf(tmp_path / "m-00002-of-00003.gguf")


def test_a_part_by_another_name_is_refused(tmp_path: Path):
    path = split_model(tmp_path).rename(tmp_path / "model.gguf")
    with pytest.raises(ModelFormatError, match=r"must end with -00001-of-00003\.gguf"):
        check_gguf(path)


def test_parts_that_disagree_are_refused(tmp_path: Path):
    path = split_model(tmp_path, num_tensors=4)
    with pytest.raises(ModelFormatError, match="hold 3 tensors, not 4"):
        check_gguf(path)
    second, third = (tmp_path / f"m-0000{n}-of-00003.gguf" for n in (2, 3))
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelFormatError, match=r"m-00003.*split\.no is 1, not 2"):
        check_gguf(path)


def test_a_tensor_or_a_key_that_is_there_twice_is_refused(tmp_path: Path):
    path = tmp_path / "twice.gguf"
    for old, new in ((b"tensor.1", b"tensor.0"), (b"tiny.double", b"general.xyz")):
        write_gguf(path, extra={"general.xyz": 1})
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(ModelFormatError, match=f"{new.decode()!r} is there twice"):
            check_gguf(path)


def test_an_alignment_of_nothing_is_refused(tmp_path: Path):
    path = write_gguf(tmp_path / "alignment.gguf", extra={"general.alignment": 0})
    with pytest.raises(ModelFormatError, match=r"general\.alignment is 0"):
        check_gguf(path)


def test_a_file_that_does_not_exist_is_not_found(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match="no file"):
        check_gguf(tmp_path / "model.gguf")


def test_a_folder_is_no_model(tmp_path: Path):
    with pytest.raises(ModelFormatError, match="cannot be read"):
        check_gguf(tmp_path)


def test_the_place_of_every_array_is_told(tiny: Path) -> None:
    arrays = read_header(tiny).arrays
    tokens, types = arrays["tokenizer.ggml.tokens"], arrays["tokenizer.ggml.token_type"]
    whole = tiny.read_bytes()
    expected = b"".join(struct.pack("<Q", len(token)) + token for token in VOCAB)
    assert (tokens.value_type, tokens.num_values) == (8, len(VOCAB))
    assert whole[tokens.offset : tokens.offset + tokens.num_bytes] == expected
    assert (types.value_type, types.num_values) == (5, 4)
    assert struct.unpack_from("<4i", whole, types.offset) == (1, 1, 1, 3)
