"""Programs of every bad habit, each judged for what it did."""

import os
from pathlib import Path

import pytest

from draftsmith.bench import sandbox
from draftsmith.bench.sandbox import Limits, Outcome, has_namespaces, run_program

_LIMITS = Limits(timeout_s=20.0, memory_bytes=512 * 2**20)
_HASTY = Limits(timeout_s=1.0)


@pytest.fixture(params=["isolated", "plain"], autouse=True)
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with the system's namespaces, and as where there are none."""
    if request.param == "isolated" and not has_namespaces():
        pytest.skip("this system gives no namespaces")
    if request.param == "plain":
        monkeypatch.setattr(sandbox, "has_namespaces", lambda: False)
    return request.param


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def f(): return 1\nassert f() == 1", Outcome.PASSED),
        ("assert 1 == 2", Outcome.FAILED),
        ("def f(:", Outcome.FAILED),
        ("raise KeyboardInterrupt", Outcome.FAILED),
        ("import no_such_module", Outcome.FAILED),
        ("import sys; sys.exit(0)\nassert False", Outcome.EXITED),
        ("import os; os._exit(0)\nassert False", Outcome.EXITED),
        ("x = []\nwhile True: x.append(bytearray(10_000_000))", Outcome.OUT_OF_MEMORY),
        ("open('outcome', 'w').write('0 passed')\nimport os; os._exit(0)", Outcome.EXITED),
        # What is read from a closed standard input is the end of a file.
        ("input()", Outcome.FAILED),
        ("import os; assert 'SECRET' not in os.environ", Outcome.PASSED),
        ("import sys; assert sys.argv[1:] == []", Outcome.PASSED),
        ("assert __name__ != '__main__'", Outcome.PASSED),
        ("with open('big', 'wb') as f: f.write(bytes(2**21))", Outcome.FAILED),
        ("x = '\ud800'", Outcome.PASSED),
    ],
)
def test_a_program_is_judged_for_what_it_did(
    monkeypatch: pytest.MonkeyPatch, source: str, outcome: Outcome
) -> None:
    monkeypatch.setenv("SECRET", "value")
    assert run_program(source, _LIMITS) is outcome


@pytest.mark.parametrize(
    "source",
    ["while True: pass", "import time; time.sleep(600)", "try:\n  while 1: pass\nfinally: 1"],
)
def test_an_endless_program_is_ended(source: str) -> None:
    assert run_program(source, _HASTY) is Outcome.TIMED_OUT


def test_its_folder_is_gone_and_so_are_its_children(tmp_path: Path) -> None:
    note = tmp_path / "note"
    source = (
        "import os, time\n"
        f"open({str(note)!r}, 'w').write(os.getcwd())\n"
        "if os.fork() == 0:\n"
        "    time.sleep(1.5)\n"
        f"    open({str(tmp_path / 'late')!r}, 'w').write('still here')\n"
        "    os._exit(0)\n"
    )
    assert run_program(source, _LIMITS) is Outcome.PASSED
    assert not Path(note.read_text()).exists()
    assert not _is_written(tmp_path / "late", seconds=2.5)


def _is_written(path: Path, seconds: float) -> bool:
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end and not path.exists():
        time.sleep(0.2)
    return path.exists()


def test_a_signal_is_no_success(isolation: str) -> None:
    if isolation == "isolated":
        pytest.skip("the first process of a namespace does not hear its own signals")
    assert run_program("import os; os.kill(os.getpid(), 9)", _LIMITS) is Outcome.EXITED


def test_with_namespaces_there_is_no_network(isolation: str) -> None:
    if isolation == "plain":
        pytest.skip("the network is closed by a namespace")
    source = (
        "import socket\n"
        "names = [name for _, name in socket.if_nameindex()]\n"
        "assert names == ['lo'], names\n"
    )
    assert run_program(source, _LIMITS) is Outcome.PASSED
    # And it is one process among few.
    assert run_program("import os; assert os.getpid() < 10", _LIMITS) is Outcome.PASSED
    assert os.getpid() >= 1
