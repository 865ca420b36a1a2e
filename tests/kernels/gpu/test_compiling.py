"""Every kernel compiles for a GPU, also where there is none: the interpreter takes more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = {
    "_add_up",
    "_attend_part",
    "_best_parts",
    "_embed",
    "_embed_part",
    "_gather",
    "_gather_parts",
    "_join_parts",
    "_leave",
    "_limit",
    "_look_up",
    "_meet",
    "_norm",
    "_prepare",
    "_product",
    "_race",
    "_resume",
    "_settle",
    "_take_draft",
    "_weigh",
    "_write",
}


@pytest.mark.long
def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    script = Path(__file__).with_name("compiling.py")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {line.split()[0] for line in done.stdout.splitlines()} == KERNELS
