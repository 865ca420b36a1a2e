"""Where a measurement was taken, and its way to disk."""

import json
import math
import os
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.report import document
from draftsmith.report.document import environment, facts, write_json


def test_the_environment_names_machine_and_versions() -> None:
    found = environment()
    assert found["versions"]["draftsmith"]
    assert found["versions"]["torch"]
    assert found["num_cpus"] == os.cpu_count()
    assert found["memory_bytes"] > 2**20
    assert json.loads(json.dumps(found)) == found


def test_packages_without_metadata_are_named_from_the_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(document, "version", version)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    versions = environment()["versions"]
    assert versions["draftsmith"]
    assert versions["torch"] == sys.modules["torch"].__version__
    assert versions["transformers"] is None


def test_a_machine_without_git_or_proc_still_has_an_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object, **__: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(document.subprocess, "run", missing)
    monkeypatch.setattr(document.Path, "read_text", missing)
    monkeypatch.setattr(document.os, "sysconf", missing)
    found = environment()
    assert found["commit"] is None
    assert found["memory_bytes"] is None
    assert "commit" not in facts(found)


def test_the_commit_of_a_repository_around_an_installed_package_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    file = tmp_path / "document.py"
    file.write_text("")
    git("commit", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(document, "__file__", str(file))
    assert environment()["commit"] is None
    git("add", "document.py")
    git("commit", "-m", "ours")
    assert environment()["commit"]
    assert environment()["is_clean"] is True
    file.write_text("changed")
    found = environment()
    assert found["is_clean"] is False
    assert facts(found)["commit"].endswith(" with changes")


def test_the_facts_are_words() -> None:
    shown = facts(
        {"cpu": "x", "num_cpus": 2, "memory_bytes": 2e9, "versions": {"a": "1"}}, "run me"
    )
    assert shown["processor"] == "x, 2 cores"
    assert shown["memory"] == "2.0 GB"
    assert shown["command"] == "run me"
    assert "gpu" not in shown


def test_what_json_lacks_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_json(path, {"a": math.nan, "b": [math.inf, (1.5, "é")], "c": {"d": -math.inf}})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, [1.5, "é"]], "c": {"d": None}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.json"
    write_json(path, {"a": 1})
    path.chmod(0o600)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(document.Path, "replace", full)
        with pytest.raises(InvalidRequestError, match=r"d\.json cannot be written: No space left"):
            write_json(path, {"a": 2})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["d.json"]
    write_json(path, {"a": 3})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be written: No such file"):
        write_json(tmp_path / "nowhere" / "d.json", {})
