"""The README's Python runs as printed, one block after the other."""
# Namespaces of executed text have no types:
# pyright: basic

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _run(space: dict[str, object]) -> int:
    """Run the blocks in one namespace; how many there are."""
    sources = [found[1] for found in _BLOCK.finditer(README.read_text("utf-8"))]
    for number, source in enumerate(sources):
        exec(compile(source, f"README block {number + 1}", "exec"), space)
    return len(sources)


@pytest.mark.usefixtures("tiny_catalogue")
def test_every_block_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    # "Yours, already loaded", as the text above the block says.
    folder = workplace / "target"
    yours = {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    assert _run(yours) >= 3
    assert capsys.readouterr().out


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_the_first_block_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text("utf-8")
    found = re.search(r"```python\n(.*?)^```\n\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "the first block and its output"
    exec(compile(found[1], "README", "exec"), {})
    assert capsys.readouterr().out.strip("\n") == found[2].strip("\n")
