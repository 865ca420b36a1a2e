"""`--remember FILE`: the same text, sooner; and what is refused in one line."""

from pathlib import Path

import pytest

from tests.cli.outcome import Cli

_OPTIONS = ("--draft", "free", "--gamma", "4", "-n", "24", "--ignore-eos", "--json")


def test_a_second_run_knows_the_first(cli: Cli, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    options = ("generate", "the quick", "-m", tiny, *_OPTIONS, "--remember", str(file))
    first, second = cli(*options).document(), cli(*options).document()
    plain = cli(
        "generate", "the quick", "-m", tiny, "-n", "24", "--ignore-eos", "--json", "--gamma", "0"
    )
    assert first["token_ids"] == second["token_ids"] == plain.document()["token_ids"]
    assert second["statistics"]["num_rounds"] < first["statistics"]["num_rounds"]
    assert file.is_file()


def test_a_file_names_the_draft(cli: Cli, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    document = cli("generate", "hi", "-m", tiny, "--remember", str(file), "--json").document()
    assert (document["draft"], document["gamma"]) == (f"free:{file}", "auto")
    assert file.is_file()
    outcome = cli("generate", "hi", "-m", tiny, "--remember", str(file), "--num-beams", "2")
    assert outcome.status == 2
    assert "leave it out" in outcome.stderr


def test_a_conversation_is_remembered(cli: Cli, roomy: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    options = ("chat", "-m", roomy, "--draft", "free", "--remember", str(file))
    assert cli(*options, "--max-tokens", "4", stdin="hello\n").status == 0
    assert file.is_file()


def test_a_benchmark_reads_the_file_and_leaves_it(cli: Cli, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    run = ("generate", "the quick", "-m", tiny, *_OPTIONS, "--remember", str(file))
    assert cli(*run).status == 0
    before = file.read_bytes()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the quick"}\n')
    outcome = cli(
        *("bench", "-m", tiny, "--workload", str(prompts), "--draft", "free", "--json"),
        *("--remember", str(file), "--rounds", "2", "--max-tokens", "24", "--ignore-eos"),
    )
    assert outcome.status == 0, outcome.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", ["generate", "chat", "serve", "bench"])
def test_it_is_for_the_free_draft(cli: Cli, tiny: str, tmp_path: Path, command: str) -> None:
    file = str(tmp_path / "memory")
    options = ("-m", tiny, "--remember", file, "--draft", "prompt-lookup")
    outcome = cli(command, *options, stdin="hi")
    assert outcome.status == 2
    assert "--remember" in outcome.stderr
    assert "add --draft free" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_foreign_file_is_left_alone(cli: Cli, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text("my diary")
    outcome = cli("generate", "hi", "-m", tiny, *_OPTIONS, "--remember", str(file))
    assert outcome.status == 2
    assert "is none, or not whole" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert file.read_text() == "my diary"


def test_another_models_file_is_refused(cli: Cli, tiny: str, roomy: str, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    assert cli("generate", "hi", "-m", tiny, *_OPTIONS, "--remember", str(file)).status == 0
    outcome = cli("generate", "hi", "-m", roomy, *_OPTIONS, "--remember", str(file))
    assert outcome.status == 2
    assert "name another file" in outcome.stderr


def test_replicas_have_no_file_in_common(cli: Cli, tiny: str, tmp_path: Path) -> None:
    file = str(tmp_path / "memory")
    options = ("serve", "-m", tiny, "--draft", "free", "--remember", file, "--replicas", "2")
    outcome = cli(*options)
    assert outcome.status == 2
    assert "of one process" in outcome.stderr
