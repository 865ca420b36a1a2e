"""`draftsmith reproduce`: the comparison on the terminal, as JSON, as a page, as plots."""

import json
from pathlib import Path
from typing import Any

import pytest

from draftsmith.papers import loops
from tests.cli.outcome import Cli

_TIMED = ("--num-prompts", "1", "--gamma-max", "2")


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time short texts."""
    inner = loops.time_texts

    def short(*arguments: Any, **options: Any) -> Any:
        return inner(*arguments, num_tokens=12, **options)

    monkeypatch.setattr(loops, "time_texts", short)


def test_leviathan_is_compared_to_the_printed_digit(cli: Cli) -> None:
    outcome = cli("reproduce", "leviathan")
    assert outcome.status == 0
    assert "39 of 45 compared values agree" in outcome.stdout
    assert outcome.stdout.count("the paper's slip") == 6
    assert "Figure 1" not in outcome.stdout


def test_chen_is_held_against_itself(cli: Cli) -> None:
    outcome = cli("reproduce", "chen")
    assert outcome.status == 0
    assert "15 of 18 compared values agree" in outcome.stdout
    assert "measured" not in outcome.stdout


def test_leviathan_is_written_with_its_trace(cli: Cli, tiny: str, tmp_path: Path) -> None:
    place, page = tmp_path / "l.json", tmp_path / "l.html"
    options = ("--json-file", str(place), "--html", str(page), "--plots", str(tmp_path))
    outcome = cli("reproduce", "leviathan", "-m", tiny, "-p", "the quick", "-n", "9", *options)
    assert outcome.status == 0, outcome
    document = json.loads(place.read_text())
    assert (document["num_same"], document["num_differs"]) == (39, 6)
    trace = document["trace"]
    assert f"{trace['num_tokens']} tokens in {trace['num_target_runs']} target runs" in (
        outcome.stdout
    )
    assert trace["num_target_runs"] == len(trace["rounds"])
    emitted = sum(len(one["kept"]) + (one["emitted"] is not None) for one in trace["rounds"])
    assert emitted == trace["num_tokens"] == 9
    assert document["environment"]["versions"]["draftsmith"]
    text = page.read_text()
    assert "Table 4: expected speed" in text
    assert "Algorithm 1" in text
    assert text.count("<svg") == 8  # four figures in two themes
    assert sorted(file.name for file in tmp_path.glob("*.svg")) == [
        "leviathan-figure-2-tokens-per-target-run.svg",
        "leviathan-figure-3-the-best-gamma.svg",
        "leviathan-figure-4-operations.svg",
        "leviathan-figure-4-speed.svg",
    ]


def test_the_trace_shows_what_was_rejected(cli: Cli, tiny: str) -> None:
    options = ("-m", tiny, "-p", "the quick brown the quick", "-n", "12", "--draft", "random")
    outcome = cli("reproduce", "leviathan", *options)
    lines = outcome.stdout.partition("target runs")[2]
    assert "\x1b[9;31m" in lines, "a rejected draft is struck out, in a pipe as well"


@pytest.mark.usefixtures("few_tokens")
def test_chen_measures_every_gamma(cli: Cli, roomy: str, draft: str, tmp_path: Path) -> None:
    place, page = tmp_path / "c.json", tmp_path / "c.html"
    models = ("-m", roomy, "--draft", draft)
    options = ("--json-file", str(place), "--html", str(page), "--plots", str(tmp_path))
    outcome = cli("reproduce", "chen", *models, *_TIMED, *options)
    assert outcome.status == 0, outcome
    points = json.loads(place.read_text())["measured"]
    assert [one["gamma"] for one in points] == [0, 1, 2]
    assert points[0]["speedup"] == points[0]["efficiency"] == 1
    assert all(0 < one["efficiency"] <= 1 and one["text_ms"]["mean"] > 0 for one in points)
    assert "Figure 1, measured" in page.read_text()
    assert (tmp_path / "chen-measured-time-for-a-text.svg").exists()


def test_an_interruption_keeps_the_prompts_that_finished(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, roomy: str, draft: str, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> Any:
        for gamma in (0, 1, 2):
            yield loops.TextTiming(0, gamma, 128, 128, 10.0)
        yield loops.TextTiming(1, 0, 128, 128, 10.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(loops, "time_texts", interrupted)
    place = tmp_path / "c.json"
    options = ("--num-prompts", "2", "--gamma-max", "2", "--json-file", str(place))
    outcome = cli("reproduce", "chen", "-m", roomy, "--draft", draft, *options)
    assert outcome.status == 130
    assert "interrupted: 4 of 6 texts were timed" in outcome.stderr
    document = json.loads(place.read_text())
    assert [one["num_texts"] for one in document["measured"]] == [1, 1, 1]
    assert not document["is_whole"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leviathan", "--json-file", "/nowhere/l.json"), "there is no folder /nowhere"),
        (("leviathan", "--html", "/"), "it is a folder"),
        (("chen", "--plots", "/nowhere"), "there is no folder /nowhere for plots: make it first"),
        (("chen", "--num-prompts", "2", "--gamma", "3"), "got --gamma 3: drop it"),
        (("chen", "--num-prompts", "0"), "--num-prompts must be between 1 and"),
        (("chen", "--num-prompts", "1", "--draft", "none"), "are a draft's: give one"),
        (("chen", "--num-prompts", "1", "--workload", "chats"), "did you mean chat?"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    assert message in cli("reproduce", *arguments).refusal()
