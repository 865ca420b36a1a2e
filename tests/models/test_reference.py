import os
from pathlib import Path

import pytest

from draftsmith.errors import ModelNotFoundError
from draftsmith.models import reference
from draftsmith.models.pull import PullProgress
from draftsmith.models.reference import ModelSource, SourceKind, local_path, resolve


def test_a_catalogue_name_is_understood_without_a_pull():
    source = resolve("smollm2-135m-instruct")
    assert source == ModelSource(SourceKind.CATALOGUE, "smollm2-135m-instruct", None)


@pytest.mark.parametrize("ref", ["Qwen/Qwen2.5-0.5B-Instruct-GGUF", "a/b", "my_org/v1.0_x"])
def test_org_slash_name_is_a_hub_id(ref: str):
    assert resolve(ref) == ModelSource(SourceKind.HUB, ref, None)


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path):
    (tmp_path / "config.json").touch()
    assert resolve(str(tmp_path)) == ModelSource(SourceKind.FOLDER, str(tmp_path), tmp_path)


def test_an_existing_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name").kind is SourceKind.FOLDER
    assert resolve("org/other").kind is SourceKind.HUB


@pytest.mark.parametrize("name", ["model.gguf", "MODEL.GGUF"])
def test_a_gguf_file_needs_no_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert resolve(name) == ModelSource(SourceKind.GGUF, name, Path(name))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.gguf").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/model.gguf").path == tmp_path / "model.gguf"


@pytest.mark.parametrize("ref", ["model.gguf", "org/model.gguf", "/no/such/model.gguf"])
def test_a_gguf_file_that_does_not_exist_is_named(ref: str):
    with pytest.raises(ModelNotFoundError, match=f"no file {ref}; check the path"):
        resolve(ref)


def test_a_folder_without_a_configuration_is_told_what_is_missing(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        resolve(str(tmp_path))


def test_a_file_of_another_format_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelNotFoundError, match=r"does not end in \.gguf"):
        resolve(str(path))


@pytest.mark.parametrize(
    "ref", ["", "nothing", "/no/such/folder", "a/b/c", "../x", "org/", "a b", "x" * 5000 + "/y/z"]
)
def test_anything_else_is_answered_with_the_four_forms_in_one_line(ref: str):
    with pytest.raises(
        ModelNotFoundError, match=r"catalogue name.*Hub id.*folder.*\.gguf"
    ) as caught:
        resolve(ref)
    assert "\n" not in str(caught.value)


def test_a_near_miss_is_answered_with_the_name():
    with pytest.raises(ModelNotFoundError, match=r"did you mean smollm2-135m-instruct\?"):
        resolve("smollm2")


def test_a_folder_named_without_a_separator_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"did you mean \./mine\?"):
        resolve("mine")


def test_only_a_catalogue_source_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pulled: list[str] = []

    def fake_pull(name: str, on_progress: object) -> Path:
        pulled.append(name)
        return tmp_path / name

    monkeypatch.setattr(reference, "pull", fake_pull)
    (tmp_path / "model.gguf").touch()
    assert local_path(resolve("org/name")) is None
    assert local_path(resolve(f"{tmp_path}{os.sep}model.gguf")) == tmp_path / "model.gguf"
    assert pulled == []
    assert local_path(resolve("smollm2-135m-instruct"), lambda _: None) is not None
    assert pulled == ["smollm2-135m-instruct"]


def test_progress_is_handed_to_the_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    handed: list[object] = []

    def fake_pull(name: str, on_progress: object) -> Path:
        handed.append(on_progress)
        return tmp_path

    def on_progress(progress: PullProgress) -> None:
        pass

    monkeypatch.setattr(reference, "pull", fake_pull)
    local_path(resolve("smollm2-135m-instruct"), on_progress)
    assert handed == [on_progress]
