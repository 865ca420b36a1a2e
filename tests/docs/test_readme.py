"""The README's Python runs as printed, one block after the other."""
# Namespaces of executed text have no types:
# pyright: basic

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACEHOLDERS = ("org/", "**inputs")
"""A block with one of these is a sketch: it names what only its reader has."""


def _run() -> int:
    """Run the blocks in one namespace; how many are no sketches."""
    space: dict[str, object] = {}
    sources = [found[1] for found in _BLOCK.finditer(README.read_text("utf-8"))]
    whole = [one for one in sources if not any(name in one for name in _PLACEHOLDERS)]
    for number, source in enumerate(whole):
        exec(compile(source, f"README block {number + 1}", "exec"), space)
    return len(whole)


@pytest.mark.usefixtures("tiny_catalogue")
def test_every_block_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert _run() > 0
    assert capsys.readouterr().out


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_the_first_block_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text("utf-8")
    found = re.search(r"```python\n(.*?)^```\n\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "the first block and its output"
    exec(compile(found[1], "README", "exec"), {})
    assert capsys.readouterr().out.strip("\n") == found[2].strip("\n")
