"""`draftsmith models` and `draftsmith theory`."""

import json
import math
from pathlib import Path

import pytest

from draftsmith.core import theory
from draftsmith.models.catalogue import CATALOGUE
from tests.cli.outcome import Cli


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTSMITH_HOME", str(tmp_path))
    return tmp_path


def test_the_list_names_every_model_whole(cli: Cli) -> None:
    outcome = cli("models", "list")
    heading, *rows = outcome.stdout.splitlines()
    assert heading.split() == ["name", "size", "licence", "fetched", "note"]
    assert [row.split()[0] for row in rows] == list(CATALOGUE)
    assert all(" no " in row for row in rows)


def test_the_list_is_also_json(cli: Cli, home: Path) -> None:
    entry = next(iter(CATALOGUE.values()))
    place = home / "models" / entry.name
    place.mkdir(parents=True)
    (place / entry.filename).touch()
    rows = json.loads(cli("models", "list", "--json").stdout)
    assert [row["name"] for row in rows] == list(CATALOGUE)
    assert [row["is_here"] for row in rows] == [True] + [False] * (len(rows) - 1)


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
