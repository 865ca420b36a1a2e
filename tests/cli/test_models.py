"""`draftsmith models` and `draftsmith theory`."""

import json
import math
from pathlib import Path

import filelock
import pytest

from draftsmith.core import theory
from draftsmith.models.catalogue import CATALOGUE
from draftsmith.models.shipped import SHIPPED
from tests.cli.outcome import Cli


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    return tmp_path


def test_the_list_names_every_model_whole(cli: Cli) -> None:
    outcome = cli("models", "list")
    heading, *rows = outcome.stdout.splitlines()
    assert heading.split() == ["name", "size", "pulled", "licence", "note"]
    assert [row.split()[0] for row in rows] == [*CATALOGUE, *SHIPPED]
    assert all(f" {'no' if row.split()[0] in CATALOGUE else 'shipped'} " in row for row in rows)


def test_the_list_is_also_json(cli: Cli, home: Path) -> None:
    entry = next(iter(CATALOGUE.values()))
    place = home / "models" / entry.name
    place.mkdir(parents=True)
    (place / entry.filename).touch()
    rows = json.loads(cli("models", "list", "--json").stdout)
    assert [row["name"] for row in rows] == [*CATALOGUE, *SHIPPED]
    here = [row["name"] for row in rows if row["is_here"]]
    assert here == [entry.name, *SHIPPED]
    assert [row["name"] for row in rows if row["kind"] == "head"] == list(SHIPPED)


def test_a_pull_in_part_shows_its_share(cli: Cli, home: Path) -> None:
    entry = next(iter(CATALOGUE.values()))
    place = home / "models" / entry.name
    place.mkdir(parents=True)
    with (place / f"{entry.filename}.partial").open("wb") as file:
        file.truncate(entry.num_bytes // 4)
    assert " 25%  " in cli("models", "list").stdout


def _pulled(home: Path) -> tuple[str, Path]:
    """A model that is here, as far as a look at the disk tells."""
    entry = next(iter(CATALOGUE.values()))
    place = home / "models" / entry.name
    place.mkdir(parents=True)
    (place / entry.filename).write_bytes(b"x" * 3_000_000)
    return entry.name, place


def test_rm_removes_what_was_pulled_and_nothing_else(cli: Cli, home: Path) -> None:
    name, place = _pulled(home)
    (home / "models" / "other").mkdir()
    outcome = cli("models", "rm", name, "--yes")
    assert (outcome.status, outcome.stdout) == (0, f"removed {name}, 3 MB\n")
    assert not place.exists()
    assert (home / "models" / "other").exists()
    assert f"model '{name}' is not here" in cli("models", "rm", name, "--yes").refusal()


def test_rm_asks_and_takes_no_for_an_answer(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, place = _pulled(home)
    assert "needs a yes: give --yes" in cli("models", "rm", name).refusal()
    monkeypatch.setattr("draftsmith.cli.models.is_terminal", lambda: True)
    assert cli("models", "rm", name, stdin="n\n").status == 0
    assert place.exists()
    asked = cli("models", "rm", name, stdin="y\n")
    assert f"remove {name}, 3 MB? [y/N]" in asked.stderr
    assert not place.exists()


def test_rm_leaves_a_model_that_is_being_pulled(cli: Cli, home: Path) -> None:
    name, place = _pulled(home)
    with filelock.FileLock(place / f"{CATALOGUE[name].filename}.lock"):
        assert "is being pulled" in cli("models", "rm", name, "-y").refusal()
    assert place.exists()


def test_show_describes_a_folder(cli: Cli, tiny: str) -> None:
    document = cli("models", "show", tiny, "--json").document()
    assert document["architecture"] == "llama"
    assert document["context_length"] == 128
    lines = cli("models", "show", tiny).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(document)


def test_show_describes_a_catalogue_model_that_is_not_here(cli: Cli) -> None:
    entry = next(iter(CATALOGUE.values()))
    document = cli("models", "show", entry.name, "--json").document()
    assert document["is_here"] is False
    assert document["sha256"] == entry.sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_show_tells_every_convention_of_a_shipped_head(cli: Cli, name: str) -> None:
    document = cli("models", "show", name, "--json").document()
    recipe = json.loads((SHIPPED[name].folder / "recipe.json").read_bytes())
    for key, value in recipe["conventions"].items():
        assert document[key] == ("speculators" if key == "layout" else value)
    assert document["licence"] == "Apache-2.0"
    assert f"{100 * recipe['acceptance']['greedy'][0]:.1f} " in document["held-out acceptance"]


def test_a_target_is_refused_where_no_head_is_shown(cli: Cli, tiny: str) -> None:
    refusal = cli("models", "show", tiny, "--target", tiny).refusal()
    assert "--target is for a draft head" in refusal


@pytest.mark.parametrize("command", ["pull", "rm"])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_head_is_neither_pulled_nor_removed(cli: Cli, command: str, name: str) -> None:
    assert f"{name} comes with the package" in cli("models", command, name).refusal()


def test_theory_prints_the_closed_forms(cli: Cli) -> None:
    document = cli("theory", "--alpha", "0.8", "--gamma", "4", "-c", "0.05", "--json").document()
    assert document["expected_tokens"] == theory.expected_tokens(0.8, 4)
    assert document["walltime_factor"] == theory.walltime_factor(0.8, 4, 0.05)
    assert document["optimal_gamma"] == theory.optimal_gamma(0.8, 0.05)
    assert document["does_pay"] is True
    lines = dict(line.split() for line in cli("theory", "--alpha", "0.8").stdout.splitlines())
    assert lines.keys() == document.keys()
    assert lines["does_pay"] == "yes"


def test_an_infinite_factor_is_null_in_json(cli: Cli) -> None:
    assert theory.oracle_factor(1.0, 0.0) == math.inf
    assert cli("theory", "--alpha", "1", "--json").document()["oracle_factor"] is None
