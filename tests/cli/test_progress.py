"""What stderr shows of long work: lines now and then, a bar on a terminal, nothing if asked."""

import io
import sys
import time
from pathlib import Path

import pytest

from draftsmith.cli import progress
from draftsmith.cli.messages import MessageOptions
from draftsmith.cli.progress import Work, span, stages, steps, working
from draftsmith.models.pull import PullProgress, PullStage
from tests.cli.outcome import Cli


@pytest.fixture(autouse=True)
def _usual() -> None:
    MessageOptions().apply()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the lines."""
    monkeypatch.setattr(progress, "DELAYS", (0.001,))
    monkeypatch.setattr(progress, "_FRESH_S", 0.0)


def _until_said(capsys: pytest.CaptureFixture[str], word: str) -> str:
    """What was said until a word came; the thread needs its turn."""
    said = ""
    for _ in range(2000):
        said += capsys.readouterr().err
        if word in said:
            return said
        time.sleep(0.005)
    pytest.fail(f"{word!r} was not said: {said!r}")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "1 s"), (40.4, "40 s"), (89.0, "89 s"), (150.0, "2 min"), (5400.0, "1 h 30 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_what_is_soon_done_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with steps("bench", 3) as step:
        step("one")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
def test_a_pipe_gets_lines_with_the_count_and_an_estimate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with steps("bench", 4, "runs") as step:
        step("one")
        assert "draftsmith: bench (one): 0 of 4 runs, 1 s so far\n" in _until_said(capsys, "one")
        step("two")
        assert "bench (two): 1 of 4 runs, about " in _until_said(capsys, "left")


def test_a_warm_up_is_left_out_of_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    MessageOptions(quiet=True).apply()
    shown: list[Work] = []

    def work(what: str, total: int, unit: str) -> Work:
        shown.append(Work(what, total, unit))
        return shown[0]

    monkeypatch.setattr(progress, "Work", work)
    with steps("bench", 4, "runs", sure_after=2) as step:
        for count, (is_counted, seconds) in enumerate(
            [(False, 300.0), (False, 200.0), (True, 10.0), (True, 20.0), (True, 0.0)]
        ):
            step(f"arm {count}", is_counted=is_counted)
            assert "left" not in shown[0].in_words() or count == 4
            now += seconds
        assert shown[0].in_words() == "bench (arm 4): 2 of 4 runs, about 30 s left"


@pytest.mark.usefixtures("at_once")
def test_work_without_an_end_in_sight_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    with working("loading a model"):
        assert "draftsmith: loading a model: 1 s so far\n" in _until_said(capsys, "so far\n")


@pytest.mark.usefixtures("at_once")
def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    MessageOptions(quiet=True).apply()
    with working("loading a model"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_stage_counts_its_own_time() -> None:
    with stages("certify") as on_step, working("x") as other:
        on_step("proof", 1, 3)
        on_step("law", 0, 9)
        assert other.total is None


def test_a_fetch_counts_megabytes() -> None:
    work = Work("loading m")
    show = progress._fetching(work, "loading m")  # pyright: ignore[reportPrivateUsage]
    show(PullProgress("m", 5_000_000, 9_000_000, PullStage.DOWNLOADING))
    assert work.in_words().startswith("downloading m: 5 of 9 MB")
    show(PullProgress("m", 9_000_000, 9_000_000, PullStage.VERIFYING))
    assert work.what == "loading m"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_stdout_stays_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with steps("bench", 2) as step:
        step("one")
        step("two")
        sys.stdout.write("text\n")
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined] # it is ours
    assert "bench (two)" in shown
    assert "1 of 2 steps" in shown
    assert capsys.readouterr().out == "text\n"


@pytest.mark.usefixtures("at_once")
def test_generate_tells_how_far_it_is_where_no_text_shows_it(cli: Cli, roomy: str) -> None:
    options = ("-m", roomy, "-n", "200", "--ignore-eos", "--json")
    said = cli("generate", "hi", *options).stderr
    assert "draftsmith: loading " in said
    assert "of 200 tokens at most" in said
    assert cli("generate", "hi", *options, "--quiet").stderr == ""


def test_quiet_drops_the_statistics_and_keeps_errors(cli: Cli, tiny: str) -> None:
    outcome = cli("generate", "hi", "-m", tiny, "-n", "2", "-q")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "--top-p must be" in cli("generate", "hi", "-q", "--top-p", "3").refusal()


def test_verbose_tells_what_was_loaded_and_the_seed(cli: Cli, tiny: str) -> None:
    said = cli("generate", "hi", "-m", tiny, "-n", "2", "-v", "--seed", "5").stderr
    assert f"draftsmith.cli.runtime: loading {tiny}" in said
    assert "seed 5, verifier coupled" in said
    assert "bonus" not in said
    more = cli("generate", "hi", "-m", tiny, "-n", "2", "-vv", "--seed", "5").stderr
    assert "runs as " in more
    assert "draftsmith.cli.generate: prompt 0, sample 0: " in more
    assert "draftsmith.cli" not in cli("generate", "hi", "-m", tiny, "-n", "2").stderr


def test_stdout_that_takes_nothing_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from draftsmith.cli import main

    for arguments in (("models", "list"), ("--help",), ("reproduce", "chen")):
        monkeypatch.setattr(sys, "argv", ["draftsmith", *arguments])
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            monkeypatch.setattr(sys, "stdout", full)
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith("draftsmith: error: standard output cannot be written: No space")
        assert told.count("\n") == 1
