"""What only a process of its own can show: imports, signals, pipes."""

import os
import signal
import subprocess
import sys

import pytest

_COMMAND = (sys.executable, "-m", "draftsmith")
_SPY = """
import sys
from draftsmith.cli import main
sys.argv[0] = "draftsmith"
try:
    main()
except SystemExit as end:
    status = end.code or 0
heavy = {"torch", "transformers", "numpy", "gguf", "huggingface_hub", "fastapi", "uvicorn"}
heavy &= sys.modules.keys()
sys.stderr.write(f"status {status} heavy {sorted(heavy)}")
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("generate --help", 0),
        ("chat --help", 0),
        ("models --help", 0),
        ("models list", 0),
        ("models list --json", 0),
        ("theory --help", 0),
        ("theory --alpha 0.8", 0),
        ("demo --help", 0),
        ("serve --help", 0),
        ("generate hi --gama 4", 2),
        ("generate hi --temperature -1", 2),
        ("generate hi --gamma 40", 2),
        ("generate hi --target nosuch", 2),
    ],
)
def test_nothing_heavy_is_imported_for_a_quick_answer(arguments: str, status: int) -> None:
    done = subprocess.run(
        (sys.executable, "-c", _SPY, *arguments.split()), capture_output=True, text=True, check=True
    )
    assert done.stderr.endswith(f"status {status} heavy []")
    assert (done.stdout != "") == (status == 0)


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen((*_COMMAND, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_ends_cleanly_with_what_was_generated(roomy: str) -> None:
    with _start("generate", "hi", "-m", roomy, "-n", "8000", "--ignore-eos") as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert b"tok/s" in err
    assert b"Traceback" not in err


def test_a_reader_that_goes_away_is_no_news(roomy: str) -> None:
    # Quiet: a slow machine would be told of its progress.
    with _start("generate", "hi", "-m", roomy, "-n", "8000", "--ignore-eos", "-q") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert err == b""


@pytest.mark.parametrize("arguments", ["--help", "models list", "theory --alpha 0.8 --json"])
def test_a_short_answer_to_nobody_is_no_news(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            (*_COMMAND, *arguments.split()), stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
