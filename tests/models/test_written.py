"""Whoever is killed while a file is written leaves the one that was there."""

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from draftsmith.drafters import NgramTable
from draftsmith.models.home import home, make_home
from draftsmith.models.written import written_whole


def test_a_file_is_replaced_in_one_step_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    for text in ("first", "second"):
        with written_whole(path) as place:
            place.write_text(text)
            assert not path.exists() or path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def stopped() -> None:
        with written_whole(path) as place:
            place.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    with written_whole(Path("/dev/null")) as place:
        place.write_text("gone")
    assert not Path("/dev/null").is_file()


def test_the_rights_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    with written_whole(tmp_path / "kept") as place:
        place.write_text("x")
    assert (tmp_path / "kept").stat().st_mode == (tmp_path / "other").stat().st_mode


def killed_while(work: Callable[[], None]) -> int:
    """Fork, work there, and say by which signal it ended."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


@pytest.mark.skipif(sys.platform != "linux", reason="kills a fork of this process")
def test_a_killed_conversion_does_not_poison_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "words.npz"
    NgramTable.from_tokens([[0, 1, 2]], vocab_size=4).save(path)
    whole = path.read_bytes()

    def die_half_way() -> None:
        def save(file: object, **arrays: object) -> None:
            os.write(file.fileno(), whole[: len(whole) // 2])  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(np, "savez_compressed", save)
        NgramTable.from_tokens([[3, 3, 3]], vocab_size=4).save(path)

    assert killed_while(die_half_way) == signal.SIGKILL
    assert path.read_bytes() == whole
    assert NgramTable.load(path).order == 2
    NgramTable.from_tokens([[3, 3, 3]], vocab_size=4).save(path)
    assert NgramTable.load(path).counts.tolist() == [0, 0, 0, 3]


def test_the_home_folder_is_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path / "deep" / "home"))
    before = os.umask(0)
    try:
        assert make_home() == home()
    finally:
        os.umask(before)
    assert stat.S_IMODE(home().stat().st_mode) == 0o700
    home().chmod(0o750)  # a user's own choice stays
    make_home()
    assert stat.S_IMODE(home().stat().st_mode) == 0o750
