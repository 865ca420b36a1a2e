"""Tiny checkpoints on disk, and the command line run in this process."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from draftsmith.cli import main, progress
from draftsmith.cli.messages import DEFAULT_MESSAGES
from tests.cli.outcome import Cli, Outcome
from tests.tiny import raw_model, raw_tokenizer, save_checkpoint


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def tiny(folder: Path) -> str:
    """A checkpoint with a context of 128 tokens."""
    return str(save_checkpoint(folder / "tiny"))


@pytest.fixture(scope="session")
def draft(folder: Path) -> str:
    """Another model with the same tokenizer."""
    return str(save_checkpoint(folder / "draft", seed=1))


@pytest.fixture(scope="session")
def roomy(folder: Path) -> str:
    """A checkpoint with room for long prompts and long outputs."""
    return str(save_checkpoint(folder / "roomy", max_position_embeddings=8192))


@pytest.fixture(scope="session")
def shuffled(folder: Path, tiny: str) -> str:
    """The same model with tokens 10 and 11 exchanged in its tokenizer."""
    place = Path(shutil.copytree(tiny, folder / "shuffled"))
    document = json.loads((place / "tokenizer.json").read_text())
    exchange = {10: 11, 11: 10}
    vocab = document["model"]["vocab"]
    document["model"]["vocab"] = {name: exchange.get(id, id) for name, id in vocab.items()}
    (place / "tokenizer.json").write_text(json.dumps(document))
    return str(place)


@pytest.fixture(scope="session")
def untemplated(folder: Path, tiny: str) -> str:
    """A base model: no chat template."""
    place = Path(shutil.copytree(tiny, folder / "untemplated"))
    (place / "chat_template.jinja").unlink()
    return str(place)


@pytest.fixture(scope="session")
def not_finite(folder: Path) -> str:
    """A model whose logits are NaN."""
    place = folder / "not_finite"
    tokenizer = raw_tokenizer()
    model = raw_model("llama", vocab_size=len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of progress, however slow the machine is."""
    monkeypatch.setattr(progress, "DELAYS", (3600.0,))


@pytest.fixture(autouse=True)
def _neither_quiet_nor_verbose() -> None:
    """Whatever an earlier command line of this process asked for."""
    DEFAULT_MESSAGES.apply()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `draftsmith` here, with its streams captured; `stdin` is piped."""

    def run(*arguments: str, stdin: str | bytes = b"") -> Outcome:
        piped = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped, encoding="utf-8"))
        monkeypatch.setattr(sys, "argv", ["draftsmith", *arguments])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
