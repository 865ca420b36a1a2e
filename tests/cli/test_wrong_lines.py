"""Wrong command lines: each is refused in one line that names the option, the value, the remedy."""

import shlex
from pathlib import Path

import pytest

from tests.cli.outcome import Cli
from tests.cli.wrong_lines import WITH_MODELS, WITHOUT_MODELS, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with something wrong in each."""
    return write_files(tmp_path_factory.mktemp("wrong"))


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model may be loaded, and none is here."""

    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded before the refusal")

    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("draftsmith.api.load_model", load)
    monkeypatch.setattr("draftsmith.models.given.load_tokenizer", load)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(("line", "said"), WITHOUT_MODELS.items())
def test_a_wrong_line_is_refused_before_any_model(
    cli: Cli, files: Path, line: str, said: str
) -> None:
    _check(cli, line, said, {"tmp": str(files)})


@pytest.mark.parametrize(("line", "said"), WITH_MODELS.items())
def test_a_line_that_does_not_fit_its_model_is_refused(
    cli: Cli, files: Path, tiny: str, draft: str, line: str, said: str
) -> None:
    _check(cli, line, said, {"tmp": str(files), "tiny": tiny, "draft": draft})


def test_there_are_a_hundred_and_fifty_of_them() -> None:
    assert len(WITHOUT_MODELS) + len(WITH_MODELS) >= 150


def _check(cli: Cli, line: str, said: str, names: dict[str, str]) -> None:
    for name, value in names.items():
        line, said = (text.replace(f"{{{name}}}", value) for text in (line, said))
    outcome = cli(*shlex.split(line))
    message = outcome.refusal().removeprefix("draftsmith: error: ")
    assert message.startswith(said), message
    assert outcome.stdout == ""
