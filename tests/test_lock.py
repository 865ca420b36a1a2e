"""The locked versions are those that `pyproject.toml` allows."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_ROOT = Path(__file__).parents[1]
_PROJECT: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_LISTS = ("run", "dev", "cuda", "oldest")


def _wanted(*extras: str) -> Iterator[Requirement]:
    project = _PROJECT["project"]
    groups = [project["dependencies"], _PROJECT["dependency-groups"]["build"]]
    groups += [project["optional-dependencies"][extra] for extra in extras]
    yield from (Requirement(line) for group in groups for line in group)


def _entries(name: str) -> list[str]:
    text = (_ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return re.findall(r"^[a-z0-9][^#]*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)


def _versions(name: str) -> dict[str, set[Version]]:
    found: dict[str, set[Version]] = {}
    for entry in _entries(name):
        requirement = Requirement(entry.split("--hash")[0].rstrip("\\ \n"))
        version = Version(str(requirement.specifier).removeprefix("=="))
        found.setdefault(canonicalize_name(requirement.name), set()).add(version)
    return found


@pytest.mark.parametrize("name", _LISTS)
def test_every_locked_version_is_exact_and_hashed(name: str) -> None:
    entries = _entries(name)
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^*\s]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize(
    ("name", "extras"), [("run", ()), ("dev", ("dev", "bench", "serve", "replicas"))]
)
def test_the_lock_satisfies_the_ranges(name: str, extras: tuple[str, ...]) -> None:
    locked = _versions(name) | _versions("cuda")
    for wanted in _wanted(*extras):
        versions = locked[canonicalize_name(wanted.name)]
        assert all(wanted.specifier.contains(version) for version in versions), wanted


def test_every_range_has_an_upper_bound_that_was_tried() -> None:
    for wanted in _wanted("dev", "bench", "serve", "replicas"):
        kinds = {one.operator for one in wanted.specifier}
        assert kinds & {"<", "=="}, wanted


def test_the_oldest_transformers_is_the_lower_bound() -> None:
    (oldest,) = _versions("oldest")["transformers"]
    bound = next(one for one in _wanted() if one.name == "transformers").specifier
    assert oldest in {Version(one.version) for one in bound if one.operator == ">="}


def test_the_lists_agree_on_what_they_share() -> None:
    run, dev = _versions("run"), _versions("dev")
    assert {name: dev[name] for name in run} == run
