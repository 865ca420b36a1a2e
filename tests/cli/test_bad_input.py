"""Every refusal is one line on stderr, exit status 2, and nothing on stdout."""

import struct
from pathlib import Path

import pytest
import torch

from draftsmith.drafters import NgramTable
from tests.cli.outcome import Cli


def test_the_help_to_see_is_the_commands_own(cli: Cli) -> None:
    assert "(see draftsmith models show --help)" in cli("models", "show").refusal()
    assert "(see draftsmith --help)" in cli("--nope").refusal()


@pytest.mark.parametrize("prompt", ["- one item", "--- a rule"])
def test_a_prompt_that_looks_like_an_option_is_told_how_to_pass(
    cli: Cli, tiny: str, prompt: str
) -> None:
    told = cli("generate", prompt, "--target", tiny)
    assert "put -- before a prompt that begins with a dash" in told.refusal()
    assert cli("generate", "-m", tiny, "-n", "1", "--", prompt).status == 0
    assert cli("generate", f"--prompt={prompt}", "-m", tiny, "-n", "1").status == 0


def test_an_empty_prompt_is_refused(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "the prompt is empty" in cli("generate", "").refusal()
    assert f"the prompt is empty (--file {empty})" in cli("generate", "-f", str(empty)).refusal()
    assert "the prompt is empty (--file -)" in cli("generate", "-f", "-").refusal()


def test_a_prompt_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café".encode("latin-1"))
    assert "is not UTF-8 text (byte 3)" in cli("generate", "-f", str(latin)).refusal()
    assert "--file - is not UTF-8" in cli("generate", "-f", "-", stdin=b"\xff").refusal()
    # What Python makes of such bytes on a command line:
    assert "the prompt is not UTF-8 text" in cli("generate", "caf\udce9").refusal()


def test_a_folder_is_no_prompt_file(cli: Cli, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in cli("generate", "-f", str(tmp_path)).refusal()


def test_a_prompt_longer_than_the_context_is_refused(cli: Cli, tiny: str) -> None:
    outcome = cli("generate", "no " * 200, "-m", tiny)
    assert f"tokens, but {tiny} has a context of 128: shorten it" in outcome.refusal()
    assert outcome.stdout == ""


def test_ids_beyond_the_vocabulary_are_refused(cli: Cli, tiny: str) -> None:
    said = cli("generate", "hi", "-m", tiny, "--ban-token", "99999").refusal()
    assert "--ban-token has id 99999" in said
    assert (
        "--logit-bias has id 99999"
        in cli("generate", "hi", "-m", tiny, "--logit-bias", "99999=1").refusal()
    )


def test_a_device_that_is_not_here_is_refused(cli: Cli, tiny: str) -> None:
    said = cli("generate", "hi", "-m", tiny, "--device", "abacus").refusal()
    assert "device 'abacus' is not available" in said


def test_a_draft_of_another_vocabulary_is_translated(cli: Cli, tiny: str, shuffled: str) -> None:
    plain = cli("generate", "hi", "-m", tiny, "--draft", "none")
    drafted = cli("generate", "hi", "-m", tiny, "-md", shuffled)
    assert plain.status == drafted.status == 0
    assert drafted.stdout == plain.stdout


@pytest.mark.parametrize("command", ["generate hi --target", "models show"])
def test_a_broken_gguf_file_is_refused(cli: Cli, tmp_path: Path, command: str) -> None:
    truncated, corrupt = tmp_path / "truncated.gguf", tmp_path / "corrupt.gguf"
    truncated.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 5))
    corrupt.write_bytes(b"not a model at all" * 9)
    for path, said in ((truncated, "is truncated"), (corrupt, "is not a GGUF file")):
        outcome = cli(*command.split(), str(path))
        assert f"{path} {said}" in outcome.refusal()
        assert outcome.stdout == ""


def test_a_folder_without_a_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    said = cli("generate", "hi", "-m", str(tmp_path)).refusal()
    assert f"folder {tmp_path} has no config.json" in said


def test_a_draft_that_is_nowhere_is_refused(cli: Cli, tiny: str) -> None:
    assert "no model 'nosuch'" in cli("generate", "hi", "-m", tiny, "-md", "nosuch").refusal()


def test_ngram_tables_that_are_missing_or_corrupt_are_refused(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    corrupt, other = tmp_path / "corrupt.npz", tmp_path / "unigram.npz"
    corrupt.write_bytes(b"PK\x03\x04 not a table")
    NgramTable(torch.ones(308, dtype=torch.long)).save(other)
    for draft, said in {
        "bigram": "draft bigram needs a file",
        "bigram:/nowhere.npz": "n-gram file '/nowhere.npz' does not exist",
        "unigram:/nowhere.txt": "n-gram file '/nowhere.txt' does not exist",
        f"bigram:{corrupt}": f"{corrupt} is not an n-gram table",
        f"bigram:{other}": f"{other} holds a table of order 1, not 2",
    }.items():
        assert said in cli("generate", "hi", "-m", tiny, "--draft", draft).refusal()


def test_a_chat_needs_a_template(cli: Cli, untemplated: str) -> None:
    said = cli("chat", "-m", untemplated, stdin="hi\n").refusal()
    assert f"{untemplated} has no chat template: use an instruct model" in said
    said = cli("generate", "hi", "--chat", "-m", untemplated).refusal()
    assert "chat needs a model with a chat template" in said


def test_a_trace_page_that_cannot_be_written_is_refused_before_the_work(
    cli: Cli, tmp_path: Path
) -> None:
    lost = tmp_path / "lost" / "page.html"
    for path, said in ((lost, f"there is no folder {lost.parent}"), (tmp_path, "it is a folder")):
        outcome = cli("generate", "hi", "--trace-html", str(path))
        assert f"--trace-html {path} cannot be written: {said}" in outcome.refusal()
        assert outcome.stdout == ""
    assert not lost.parent.exists()


def test_a_full_disk_is_told_after_the_text(
    cli: Cli, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    page = tmp_path / "page.html"
    outcome = cli("generate", "hi", "-m", tiny, "-n", "2", "--trace-html", str(page))
    assert outcome.status == 2
    assert outcome.stdout != ""
    assert f"trace page {page} cannot be written: No space left" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nan_logits_end_in_an_error(cli: Cli, not_finite: str, form: list[str]) -> None:
    outcome = cli("generate", "hi", "-m", not_finite, *form)
    assert outcome.status == 2
    assert outcome.stderr.splitlines()[-1].startswith("draftsmith: error: ")
    if form:
        document = outcome.document()
        assert document["finish_reason"] == "error"
        assert document["error"] in outcome.stderr
