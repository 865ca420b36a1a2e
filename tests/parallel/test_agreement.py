"""Ranks that would load something else than rank 0 are refused, and what differs is said."""

from pathlib import Path

import pytest
import torch

from draftsmith.errors import ParallelError
from draftsmith.models.ranks import model_files
from draftsmith.parallel.agreement import Facts, ModelFile, check_agreement, difference, digest
from draftsmith.parallel.processes import end_group, start_group
from tests.parallel.objects import other_torch
from tests.tiny import save_checkpoint

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks

_MINE = Facts("1.0", "2.13", "float32", {"a": "x", "b": "y"})


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    """Ten pieces' worth of weights behind a header of a thousand bytes."""
    path = tmp_path / "model"
    torch.manual_seed(0)
    path.write_bytes(
        torch.randint(256, (1000 + 20 * 65536 * 64,), dtype=torch.uint8).numpy().tobytes()
    )
    return ModelFile(str(path), 1000)


def _changed(file: ModelFile, place: int) -> str:
    with Path(file.path).open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ 1]))
    return digest(file)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (_MINE._replace(draftsmith="1.1"), "has draftsmith 1.1, and rank 0 has 1.0"),
        (_MINE._replace(torch="2.12"), "has torch 2.12, and rank 0 has 2.13"),
        (_MINE._replace(dtype="bfloat16"), "has dtype bfloat16, and rank 0 has float32"),
        (_MINE._replace(files={"a": "x", "b": "z"}), "reads another b than rank 0"),
    ],
)
def test_what_differs_is_said(theirs: Facts, words: str) -> None:
    found = difference(_MINE, theirs)

    assert found is not None
    assert found.startswith(words)
    assert difference(_MINE, _MINE) is None


@pytest.mark.parametrize("place", [0, 999, 1000, 1000 + 65535, -65536, -1])
def test_a_change_of_the_header_or_of_a_piece_is_seen(file: ModelFile, place: int) -> None:
    before, size = digest(file), Path(file.path).stat().st_size

    assert _changed(file, place % size) != before
    assert _changed(file, place % size) == before


def test_a_change_between_the_pieces_is_not_seen(file: ModelFile) -> None:
    # What the docstring owns up to: the second piece lies twenty pieces behind the first.
    assert digest(file) == _changed(file, 1000 + 5 * 65536)


def test_another_size_is_seen(file: ModelFile) -> None:
    before = digest(file)
    with Path(file.path).open("ab") as opened:
        opened.write(b"\0")

    assert digest(file) != before


def test_a_folder_is_read_whole_but_for_its_weights(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tiny")

    found = {Path(one.path).name: one.num_header_bytes for one in model_files(folder)}

    assert {"config.json", "tokenizer.json", "model.safetensors"} <= found.keys()
    header = found.pop("model.safetensors")
    assert header is not None
    written = (folder / "model.safetensors").read_bytes()
    assert header == 8 + int.from_bytes(written[:8], "little")
    assert set(found.values()) == {None}


def test_ranks_that_agree_say_nothing_and_one_that_does_not_is_named(tmp_path: Path) -> None:
    orders = start_group(2, torch.device("cpu")).orders
    assert orders is not None
    (tmp_path / "config.json").write_text("{}")
    files = [ModelFile(str(tmp_path / "config.json"), None)]
    try:
        check_agreement(orders, files, "float32")
        orders.make(other_torch)
        with pytest.raises(ParallelError, match=r"^rank 1 of 2 has torch 1\.0, and rank 0 has 2"):
            check_agreement(orders, files, "float32")
    finally:
        end_group()
