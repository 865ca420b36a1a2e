"""`draftsmith generate --prompts`: many prompts, labelled answers, and what JSON says of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.outcome import Cli

_SHORT = ("-n", "5", "--ignore-eos")


def _documents(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


@pytest.fixture
def objects(tmp_path: Path) -> str:
    path = tmp_path / "asked.jsonl"
    turns = [{"role": "user", "content": "xyz"}]
    lines = [{"prompt": "the quick", "id": "one"}, {"messages": turns, "max_tokens": 2}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("place", ["file", "-"])
def test_each_line_is_a_prompt_and_its_answer_is_plain_generates(
    cli: Cli, tiny: str, tmp_path: Path, place: str
) -> None:
    text = "the quick\n\nlazy dog\r\n"
    path = tmp_path / "asked.txt"
    path.write_bytes(text.encode())
    source = str(path) if place == "file" else "-"
    outcome = cli("generate", "--prompts", source, "-m", tiny, *_SHORT, "--json", stdin=text)
    documents = _documents(outcome.stdout)
    name = "asked" if place == "file" else "stdin"
    assert [(one["index"], one["id"]) for one in documents] == [(0, f"{name}/1"), (1, f"{name}/3")]
    for one, prompt in zip(documents, ("the quick", "lazy dog"), strict=True):
        alone = cli("generate", prompt, "-m", tiny, *_SHORT, "--json").document()
        assert one["token_ids"] == alone["token_ids"]


def test_objects_bring_ids_conversations_and_lengths(cli: Cli, tiny: str, objects: str) -> None:
    outcome = cli("generate", "--prompts", objects, "-m", tiny, *_SHORT, "--json")
    first, second = _documents(outcome.stdout)
    assert (first["id"], second["id"]) == ("one", "asked/2")
    assert (len(first["token_ids"]), len(second["token_ids"])) == (5, 2)
    assert second["num_prompt_tokens"] == len("xyz") + 2, "the template adds two tokens"
    assert (first["parameters"]["max_tokens"], second["parameters"]["max_tokens"]) == (5, 2)
    assert first["seed"] != second["seed"]


def test_text_is_labelled_too(cli: Cli, tiny: str, objects: str) -> None:
    options = ("-m", tiny, *_SHORT, "--num-samples", "2", "--temp", "1")
    lines = cli("generate", "--prompts", objects, *options).stdout.splitlines()
    assert [line for line in lines if line.startswith("---")] == [
        "--- 1 of 2: one, sample 1 of 2 ---",
        "--- 1 of 2: one, sample 2 of 2 ---",
        "--- 2 of 2: asked/2, sample 1 of 2 ---",
        "--- 2 of 2: asked/2, sample 2 of 2 ---",
    ]


def test_one_prompt_that_cannot_be_served_does_not_stop_the_others(cli: Cli, tiny: str) -> None:
    text = f"hi\n{'no ' * 100}\nho\n"
    outcome = cli("generate", "--prompts", "-", "-m", tiny, *_SHORT, "--json", stdin=text)
    assert outcome.status == 2
    reasons = [one["finish_reason"] for one in _documents(outcome.stdout)]
    assert reasons == ["length", "error", "length"]
    assert "draftsmith: error: prompt 'stdin/2': " in outcome.stderr
    assert "has a context of 128" in outcome.stderr


def test_json_says_enough_to_get_the_text_again(cli: Cli, tiny: str) -> None:
    sampled = ("generate", "the dog", "-m", tiny, "-n", "20", "--temp", "1", "--ignore-eos")
    first = cli(*sampled, "--json").document()
    assert first["parameters"]["temperature"] == 1
    assert first["parameters"]["seed"] == first["seed"]
    assert first["exact"] is True
    assert first["device"] == "cpu"
    assert first["versions"].keys() >= {"draftsmith", "torch", "python"}
    again = ("--seed", str(first["seed"]), "--verifier", first["parameters"]["verifier"])
    assert cli(*sampled, *again, "--json").document()["token_ids"] == first["token_ids"]


def test_a_drawn_seed_survives_a_reader_with_doubles(cli: Cli, tiny: str) -> None:
    seed = cli("generate", "hi", "-m", tiny, "-n", "1", "--json").document()["seed"]
    assert 0 <= seed < 2**53


def test_a_lossy_setting_marks_the_output(cli: Cli, tiny: str, draft: str) -> None:
    lossy = ("generate", "the dog", "-m", tiny, "-md", draft, "-n", "4", "--lossy-lenience", "0.5")
    assert cli(*lossy, "--json").document()["exact"] is False
    outcome = cli(*lossy, "--quiet")
    assert outcome.stderr.startswith("draftsmith: not exact: --lossy-lenience 0.5")


def test_a_system_turn_goes_before_each_prompt(cli: Cli, tiny: str) -> None:
    options = ("--prompts", "-", "--chat", "--system", "xyz", "-m", tiny, "-n", "1", "--json")
    outcome = cli("generate", *options, stdin="xyz\n")
    assert _documents(outcome.stdout)[0]["num_prompt_tokens"] == 2 * (1 + len("xyz")) + 1
