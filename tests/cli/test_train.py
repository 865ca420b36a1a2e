"""`draftsmith train`: from prompts to a draft, in one command."""

import json
from pathlib import Path

import pytest

from tests.cli.outcome import Cli
from tests.train.kit import save_easy_target

QUICK = ("--num-tokens", "300", "--max-length", "24", "--max-epochs", "1", "--batch-tokens", "128")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_easy_target(tmp_path_factory.mktemp("target")))


@pytest.fixture
def asked(tmp_path: Path) -> str:
    path = tmp_path / "asked.jsonl"
    lines = [{"prompt": f"fox {number} over"} for number in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_head_is_trained_and_told_of(cli: Cli, target: str, asked: str, tmp_path: Path) -> None:
    command = ("train", "--target", target, "--prompts", asked, "--out", str(tmp_path / "head"))
    outcome = cli(*command, *QUICK)
    assert outcome.status == 0, outcome.stderr
    assert "foretold" in outcome.stdout
    assert f"--draft {tmp_path / 'head'}" in outcome.stdout
    assert "held-out acceptance by place" in outcome.stderr
    # The same command again has nothing left to do.
    again = cli(*command, *QUICK, "--json")
    document = again.document()
    assert "held-out" not in again.stderr
    assert document["conventions"]["layout"] == "made here"
    assert len(document["acceptance"]["greedy"]) == 3


def test_a_head_that_drafts_a_block_is_trained_and_shown(
    cli: Cli, target: str, asked: str, tmp_path: Path
) -> None:
    out = tmp_path / "head"
    command = ("train", "--target", target, "--prompts", asked, "--out", str(out), *QUICK)
    outcome = cli(*command, "--kind", "block", "--num-steps", "5", "--markov-rank", "8", "--json")
    assert outcome.status == 0, outcome.stderr
    assert len(outcome.document()["acceptance"]["greedy"]) == 5
    shown = cli("models", "show", str(out), "--json").document()
    assert shown["kind"] == "DSpark"
    assert shown["block"] == "5 rows, which draft 5 tokens"
    refusal = cli(*command).refusal()
    assert "is a training's with --kind block, and 'eagle3' is asked for" in refusal


def test_a_small_model_is_trained_and_drafts(
    cli: Cli, target: str, asked: str, tmp_path: Path
) -> None:
    out = tmp_path / "draft"
    command = ("train", "--target", target, "--prompts", asked, "--out", str(out), *QUICK)
    distilled = ("--kind", "distilled", "--num-layers", "1", "--num-steps", "4")
    outcome = cli(*command, *distilled, "--json")
    assert outcome.status == 0, outcome.stderr
    assert outcome.document()["conventions"]["layers"] == "1 of 2, begun as 0"
    assert len(outcome.document()["acceptance"]["greedy"]) == 4
    drafted = cli(
        *("generate", "the fox", "--target", target, "--draft", str(out), "--max-tokens", "8")
    )
    plain = cli("generate", "the fox", "--target", target, "--draft", "none", "--max-tokens", "8")
    assert drafted.status == 0, drafted.stderr
    assert drafted.stdout == plain.stdout
    refusal = cli(*command).refusal()
    assert "is a training's with --kind distilled, and 'eagle3' is asked for" in refusal


def test_a_text_file_gives_beginnings(cli: Cli, target: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 300)
    out = tmp_path / "head"
    outcome = cli("train", "--target", target, "--data", str(text), "--out", str(out), *QUICK)
    assert outcome.status == 0, outcome.stderr
    assert (out / "recipe.json").is_file()


def test_the_target_invents_its_prompts(cli: Cli, target: str, tmp_path: Path) -> None:
    out = tmp_path / "head"
    invented = ("--self-prompts", "8", "--opening", "fox", "--max-minutes", "5")
    outcome = cli("train", "--target", target, "--out", str(out), *invented, *QUICK)
    assert outcome.status == 0, outcome.stderr
    assert len((out / "training" / "prompts.jsonl").read_text().splitlines()) > 8
    assert json.loads((out / "recipe.json").read_text())["minutes"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to train on"),
        (("--data", "nowhere.txt"), "text nowhere.txt cannot be read"),
        (("--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--workload", "chat", "--num-tokens", "0"), "must be 1 or more, got 0"),
        (("--workload", "chat", "--held-out", "2"), "between 0.001 and 0.5"),
        (("--workload", "chat", "--opening", "Write"), "give --self-prompts, too"),
        (("--workload", "chat", "--markov-rank", "8"), "is of a block, and eagle3 has none"),
        (("--workload", "chat", "--kind", "block", "--num-steps", "40"), "32 at most, got 40"),
        (
            ("--workload", "chat", "--kind", "distilled", "--draft-ids", "64"),
            "--draft-ids 64 is of a head, and a distilled draft has all ids",
        ),
        (
            ("--workload", "chat", "--kind", "distilled", "--num-layers", "3"),
            "--num-layers must be 2 at most",
        ),
        (
            ("--workload", "chat", "--kind", "distilled", "--export", "speculators"),
            "is no layout of --kind distilled, which is written in that of transformers",
        ),
        (("--workload", "chat", "--export", "transformers"), "in that of speculators"),
        (("--self-prompts", "-1"), "--self-prompts must be 0 or more, got -1"),
        (("--workload", "chat", "--max-minutes", "0"), "above 0 and at most 100000, got 0.0"),
        (("--workload", "chat", "--device", "gpux"), "device 'gpux' is not available"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    cli: Cli, target: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = cli("train", "--target", target, "--out", str(tmp_path / "head"), *arguments)
    assert message in outcome.refusal()


def test_an_empty_text_is_refused(cli: Cli, target: str, tmp_path: Path) -> None:
    text = tmp_path / "empty.txt"
    text.write_text("")
    outcome = cli("train", "--target", target, "--data", str(text), "--out", str(tmp_path / "h"))
    assert "there is no text in" in outcome.refusal()


def test_a_head_that_is_no_draft_is_refused_in_one_line(
    cli: Cli, target: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["DFlash2DraftModel"]}))
    outcome = cli("generate", "x", "--target", target, "--draft", str(tmp_path))
    assert "architectures is 'DFlash2DraftModel'" in outcome.refusal()
    sized = ("--draft", str(tmp_path), "--draft-vocab-size", "5")
    assert "is a head" in cli("generate", "x", "--target", target, *sized).refusal()
