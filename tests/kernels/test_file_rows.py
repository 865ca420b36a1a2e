"""Rows that stay in their file, while others do to it what they like."""

import os
from pathlib import Path

import numpy as np
import pytest

from draftsmith.errors import ModelFormatError
from draftsmith.kernels.file_rows import FileRows
from draftsmith.kernels.matrix import Matrix

ROWS = np.arange(40, dtype=np.uint8).reshape(8, 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"abc" + ROWS.tobytes() + b"more")
    return path


def test_rows_are_those_of_the_file(file: Path) -> None:
    rows = FileRows(file, 3, 8, 5)
    assert np.array_equal(rows.read([7, 0, 3, 3]), ROWS[[7, 0, 3, 3]])
    assert rows.read([]).shape == (0, 5)


def test_parts_are_the_whole_in_order(file: Path) -> None:
    parts = list(FileRows(file, 3, 8, 5).parts(15))
    assert [part.nbytes for part in parts] == [15, 15, 10]
    assert np.array_equal(np.concatenate(parts), ROWS.reshape(-1))


def test_a_file_that_is_replaced_is_still_the_one_that_was_opened(file: Path) -> None:
    rows = FileRows(file, 3, 8, 5)
    other = file.with_name("other")
    other.write_bytes(bytes(60))
    other.replace(file)
    assert np.array_equal(rows.read([2]), ROWS[[2]])
    file.unlink()
    assert np.array_equal(rows.read([2]), ROWS[[2]])


def test_a_file_that_is_cut_short_is_an_error_and_no_signal(file: Path) -> None:
    rows = FileRows(file, 3, 8, 5, "tensor 'embedding'")
    os.truncate(file, 10)
    with pytest.raises(ModelFormatError, match="is truncated: it ends within tensor 'embedding'"):
        rows.read([5])


def test_a_file_that_is_written_to_is_an_error(file: Path) -> None:
    rows = FileRows(file, 3, 8, 5)
    changed = file.stat().st_mtime_ns + 1_000_000
    with file.open("r+b") as opened:
        opened.write(b"xyz")
    os.utime(file, ns=(changed, changed))  # clocks of files are coarse
    with pytest.raises(ModelFormatError, match="was written to while its model was in use"):
        rows.read([5])


def test_a_file_that_is_short_or_not_there_is_refused(file: Path) -> None:
    with pytest.raises(ModelFormatError, match="weights is truncated: it ends within blk"):
        Matrix.in_file(file, 3, "F32", 12, 1, "blk.0")
    with pytest.raises(ModelFormatError, match=r"nothing cannot be read \(No such file"):
        FileRows(file.with_name("nothing"), 0, 8, 5)


def test_the_file_is_closed_with_the_rows(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    rows = FileRows(file, 3, 8, 5)
    del rows
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before
