"""The schema is what the server does: schemathesis, with all of its checks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from draftsmith.serve.settings import Limits, ServeSettings
from tests.serve import live

_HERE = Path(__file__).parent
_RUN = "import schemathesis.cli as cli; cli.schemathesis()"


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["coverage", "fuzzing"])
def test_schemathesis_finds_nothing(phase: str, tmp_path: Path) -> None:
    settings = ServeSettings(port=0, limits=Limits(max_output_tokens=16))
    with live.serving(live.engine(), settings) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-c", _RUN),
                *("--config-file", str(_HERE / "schemathesis.toml")),
                *("run", f"{server.address}/openapi.json", "--checks", "all"),
                *("--phases", phase, "--max-examples", "25", "--seed", "1", "--no-color"),
                *("--suppress-health-check", "all"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ
            | {
                "SCHEMATHESIS_HOOKS": "tests.serve.schemathesis_checks",
                "PYTHONPATH": str(_HERE.parents[1]),
            },
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "12/12" in done.stdout
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None
    assert int(found[1]) > 100
