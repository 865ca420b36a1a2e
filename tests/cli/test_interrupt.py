"""Ctrl-C while a text is made, in this process."""

import os
import signal
from collections.abc import Iterator

import pytest

from draftsmith.engine.generation import Generation
from draftsmith.engine.requests.result import StreamEvent
from draftsmith.engine.scheduler import Scheduler
from tests.cli.outcome import Cli

_LONG = ("-n", "4000", "--ignore-eos", "--seed", "1", "--temp", "1")


def _press_ctrl_c(monkeypatch: pytest.MonkeyPatch, step: str, *rounds: int) -> None:
    """Press Ctrl-C as the given rounds, counted from 1, come to a step."""
    original = getattr(Scheduler, step)
    count = 0

    def pressed(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count in rounds:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(Scheduler, step, pressed)


def test_json_is_still_printed_with_what_there_is(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cli("generate", "hi", "-m", roomy, *_LONG[2:], "-n", "40", "--json").document()
    _press_ctrl_c(monkeypatch, "_round", 5)
    outcome = cli("generate", "hi", "-m", roomy, *_LONG, "--json")
    document = outcome.document()
    assert outcome.status == 130
    assert outcome.stderr == ""
    assert document["finish_reason"] == "abort"
    num_tokens = len(document["token_ids"])
    assert num_tokens >= 5, "the round in hand was to be finished"
    assert document["token_ids"] == whole["token_ids"][:num_tokens]
    assert document["statistics"]["num_committed"] == num_tokens


def test_text_ends_with_a_line_break_and_the_count(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _press_ctrl_c(monkeypatch, "_round", 20)
    outcome = cli("generate", "hi", "-m", roomy, *_LONG)
    assert outcome.status == 130
    assert len(outcome.stdout) > 10
    assert outcome.stdout.endswith("\n")
    assert "tok/s" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_before_the_first_token_it_stops_at_once(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _press_ctrl_c(monkeypatch, "_round", 1)
    outcome = cli("generate", "hi", "-m", roomy, *_LONG, "--json")
    assert outcome.status == 130
    assert outcome.document()["token_ids"] == []
    assert outcome.document()["finish_reason"] == "abort"


def test_a_second_press_stops_at_once(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort = Generation.abort

    def pressed(self: Generation) -> Iterator[StreamEvent]:
        os.kill(os.getpid(), signal.SIGINT)
        return abort(self)

    _press_ctrl_c(monkeypatch, "_round", 3)
    monkeypatch.setattr(Generation, "abort", pressed)
    outcome = cli("generate", "hi", "-m", roomy, *_LONG)
    assert outcome.status == 130
    assert "Traceback" not in outcome.stderr


def test_samples_that_never_began_are_told_too(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _press_ctrl_c(monkeypatch, "_round", 2)
    document = cli(
        "generate", "hi", "-m", roomy, *_LONG, "--num-samples", "20", "--json"
    ).document()
    assert len(document["completions"]) == 20
    assert {sample["finish_reason"] for sample in document["completions"]} == {"abort"}
    assert document["completions"][19]["token_ids"] == []


@pytest.mark.parametrize("line", ["generate hi", "plan", "certify", "demo", "bench"])
def test_while_models_load_it_says_one_word(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("draftsmith.api.load_engine", load)
    assert cli(*line.split()) == (130, "", "draftsmith: interrupted\n")


@pytest.mark.parametrize(
    ("line", "work"),
    [
        ("plan", "draftsmith.bench.planner.Planner.run"),
        ("certify", "draftsmith.audit.certificate.certify"),
    ],
)
def test_measuring_that_is_cut_short_says_so(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch, line: str, work: str
) -> None:
    def measure(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, measure)
    assert cli(line, "-m", tiny) == (130, "", "draftsmith: interrupted\n")


def test_the_handler_that_was_there_comes_back(cli: Cli, tiny: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert cli("generate", "hi", "-m", tiny, "-n", "2").status == 0
    assert signal.getsignal(signal.SIGINT) is before
