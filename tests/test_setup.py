"""scripts/setup says what it is doing; a stand-in for Python does nothing, at once."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"import torch"*) test -e has-torch ;;
  *"--editable"*) touch has-torch ;;
esac
"""


def _set_up(place: Path, wanted: str) -> list[str]:
    """What a run says, line by line."""
    environment = {**os.environ, "PYTHON": str(place / "python"), "TORCH": "torch==0"}
    run = subprocess.run(
        [place / "scripts" / "setup", wanted],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert run.stdout == ""
    return run.stderr.splitlines()


def test_a_line_for_every_step_and_the_minutes_only_once(tmp_path: Path) -> None:
    for name in ("scripts", "requirements", "src/draftsmith/kernels/cpu/source"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    first = _set_up(tmp_path, "run")
    assert [line.split()[1] for line in first] == ["setting", "what", "torch==0", "draftsmith"]
    assert "some 3 minutes" in first[0]
    assert _set_up(tmp_path, "run") == []
    more = _set_up(tmp_path, "dev")
    assert not any("minutes" in line for line in more)
    assert any("what the tests need" in line for line in more)
