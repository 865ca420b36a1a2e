"""`draftsmith completion`: scripts that shells can read, and what bash makes of one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.outcome import Cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_script(cli: Cli, tmp_path: Path, shell: str) -> None:
    outcome = cli("completion", shell)
    assert outcome.status == 0
    assert "--temperature" in outcome.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(outcome.stdout)
    option = "--no-execute" if shell == "fish" else "-n"
    subprocess.run((shell, option, str(script)), check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("gen",), "generate"),
        (("models", "l"), "list"),
        (("bench", "pass"), "passrate"),
        (("generate", "--num-s"), "--num-samples"),
        (("generate", "--dtype", "bf"), "bfloat16"),
    ],
)
def test_bash_completes(cli: Cli, words: tuple[str, ...], wanted: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = cli("completion", "bash").stdout
    typed = " ".join(f"'{word}'" for word in ("draftsmith", *words))
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _draftsmith; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ("bash", "-c", f"{script}\n{ask}"), check=True, capture_output=True, text=True
    )
    assert wanted in done.stdout.split()
