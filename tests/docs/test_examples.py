"""Every example of the folder, of a docstring and of the README runs."""
# Namespaces of executed text have no types:
# pyright: basic

import doctest
import importlib
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import draftsmith

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
_WORDS = {
    "generate": "the same text without a draft: True",
    "stream": "stopped after",
    "batch": "--- A haiku about the sea:",
    "own_drafter": "tokens per pass",
    "transformers_custom_generate": "def fibonacci(n):",
    "encoder_decoder": "tokens per pass",
    "research_acceptance": "by equation 1 from the overlap",
}
"""What each prints, among other things."""


def _arguments(name: str, checkpoints: dict[str, str]) -> list[str]:
    """Folders in the place of what would be fetched from the Hub."""
    if name == "transformers_custom_generate":
        return [checkpoints["causal"], checkpoints["causal draft"]]
    return [checkpoints["encoder-decoder"]] if name == "encoder_decoder" else []


@pytest.mark.parametrize("name", _WORDS)
@pytest.mark.usefixtures("tiny_catalogue")
def test_an_example_runs_as_a_script(
    name: str,
    checkpoints: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *_arguments(name, checkpoints)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert _WORDS[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", ["transformers_custom_generate", "encoder_decoder"])
def test_an_example_without_its_model_ends_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "/nowhere/model/"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = str(end.value.code)
    assert said.startswith(f"{name}.py: ")
    assert "/nowhere/model" in said
    assert "\n" not in said


def test_every_example_is_run_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(_WORDS)
    listed = set(re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text("utf-8")))
    assert listed == names


def _modules_with_examples() -> list[str]:
    """Modules in whose source a prompt stands."""
    found: list[str] = []
    for info in pkgutil.walk_packages(draftsmith.__path__, "draftsmith."):
        spec = info.module_finder.find_spec(info.name, None)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue] # finders of files have it
        origin = None if spec is None else spec.origin
        if origin and origin.endswith(".py") and ">>> " in Path(origin).read_text("utf-8"):
            found.append(info.name)
    return found


@pytest.mark.parametrize("name", _modules_with_examples())
@pytest.mark.usefixtures("tiny_catalogue")
def test_the_examples_of_a_modules_docstrings_print_what_they_show(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    module = importlib.import_module(name)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    # As a reader would type it: what the module itself imports is not there.
    public = {one: getattr(module, one) for one in getattr(module, "__all__", ())}
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=public):
        runner.run(test, out=said.append, clear_globs=False)
    assert not runner.summarize(verbose=False).failed, "".join(said)


def test_every_example_of_a_docstring_is_one_that_runs() -> None:
    skipped: list[str] = []
    for path in sorted((ROOT / "src" / "draftsmith").rglob("*.py")):
        source = path.read_text("utf-8")
        place = str(path.relative_to(ROOT / "src" / "draftsmith"))
        for block in re.findall(r"^ *Examples?:\n\s*(\S.*)", source, re.MULTILINE):
            assert block.startswith(">>> "), f"{place}: {block}"
        skipped += [place] * source.count("+SKIP")
    # It would fetch 98 MB.
    assert skipped == ["models/pull.py"]
