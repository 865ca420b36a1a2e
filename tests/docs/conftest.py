"""Tiny checkpoints that answer to the names in our examples, so that these run in a moment."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable
from pathlib import Path

import pytest

from draftsmith.models import load
from draftsmith.models.reference import ModelSource, SourceKind
from tests.models.gguf.files import write_gguf
from tests.tiny import near_twin, raw_model, raw_tokenizer

_SEEDS = {"causal": ("llama", 3, {}), "encoder-decoder": ("t5", 2, {"tie_word_embeddings": False})}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders: a target and a draft that is often right, and an encoder-decoder."""
    root = tmp_path_factory.mktemp("docs")
    folders: dict[str, str] = {}
    for name, (kind, seed, changes) in _SEEDS.items():
        tokenizer = raw_tokenizer()
        model = raw_model(kind, seed, vocab_size=len(tokenizer), **changes)
        for one, saved in ((name, model), (f"{name} draft", near_twin(model, 0.1))):
            folder = root / one.replace(" ", "-")
            saved.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            folders[one] = str(folder)
    return folders


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, str]) -> Path:
    """A folder with what examples name: `model.gguf`, `target`, `t5-small`, a model of the Hub."""
    folder = tmp_path_factory.mktemp("workplace")
    write_gguf(folder / "model.gguf", raw_model("llama"))
    (folder / "target").symlink_to(checkpoints["causal"])
    (folder / "HuggingFaceTB").mkdir()
    (folder / "HuggingFaceTB" / "SmolLM2-135M-Instruct").symlink_to(checkpoints["causal"])
    (folder / "t5-small").symlink_to(checkpoints["encoder-decoder"])
    return folder


@pytest.fixture
def tiny_catalogue(monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, str]) -> None:
    """Catalogue names mean the tiny checkpoints."""

    def local(source: ModelSource, on_progress: Callable | None = None) -> Path | None:
        del on_progress
        if source.kind is not SourceKind.CATALOGUE:
            return source.path
        is_draft = source.reference == "qwen2.5-coder-0.5b-instruct"
        return Path(checkpoints["causal draft" if is_draft else "causal"])

    monkeypatch.setattr(load, "local_path", local)
