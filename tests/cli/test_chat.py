"""`draftsmith chat`: turns, commands, a full context, and its ends."""

import os
import signal

import pytest

from draftsmith.cli.chat import COMMANDS
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import Prompt
from draftsmith.errors import NumericsError
from tests.cli.outcome import Cli

_OPTIONS = ("--max-tokens", "4", "--ignore-eos", "--seed", "1", "--temp", "0.5")


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """What the engine is given, turn by turn."""
    given: list[Prompt] = []
    start = Engine.start

    def spy(self: Engine, prompts: Prompt, params: object = None) -> object:
        given.append(prompts)
        return start(self, prompts, params)  # type: ignore[arg-type] # passed through as it came

    monkeypatch.setattr(Engine, "start", spy)
    return given


def _contents(prompt: Prompt) -> list[str]:
    return [turn["content"] for turn in prompt if isinstance(turn, dict)]


def test_each_line_is_a_turn_and_the_answers_alone_are_on_stdout(
    cli: Cli, roomy: str, prompts: list[Prompt]
) -> None:
    outcome = cli("chat", "-m", roomy, *_OPTIONS, stdin="hello\n\nagain")
    assert outcome.status == 0
    assert len(prompts) == 2
    first, second = map(_contents, prompts)
    assert first == ["hello"]
    assert [second[0], second[2]] == ["hello", "again"]
    assert outcome.stdout.startswith(f"{second[1]}\n")
    assert outcome.stderr.count("tok/s") == 2


@pytest.mark.parametrize("word", ["/reset", "/clear"])
def test_reset_forgets_all_but_the_systems_turn(
    cli: Cli, roomy: str, prompts: list[Prompt], word: str
) -> None:
    options = ("--system", "be kind", *_OPTIONS)
    outcome = cli("chat", "-m", roomy, *options, stdin=f"one\n{word}\ntwo\n")
    assert outcome.status == 0
    assert list(map(_contents, prompts)) == [["be kind", "one"], ["be kind", "two"]]


@pytest.mark.parametrize("word", ["/exit", "/quit"])
def test_exit_ends_the_talk(cli: Cli, roomy: str, prompts: list[Prompt], word: str) -> None:
    assert cli("chat", "-m", roomy, *_OPTIONS, stdin=f"one\n{word}\ntwo\n").status == 0
    assert len(prompts) == 1


def test_no_line_is_no_turn(cli: Cli, roomy: str, prompts: list[Prompt]) -> None:
    assert cli("chat", "-m", roomy).status == 0
    assert prompts == []


def test_a_conversation_that_outgrows_the_context_is_refused(cli: Cli, tiny: str) -> None:
    outcome = cli("chat", "-m", tiny, *_OPTIONS, stdin=f"hi\n{'x' * 130}\nhi\n")
    assert outcome.status == 2
    assert "has a context of 128: shorten it" in outcome.stderr.splitlines()[-1]


def test_piped_lines_that_are_not_utf8_are_refused(cli: Cli, tiny: str) -> None:
    assert "standard input is not UTF-8 text" in cli("chat", "-m", tiny, stdin=b"\xff\n").refusal()


def test_ctrl_c_ends_a_piped_talk_with_what_was_said(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from draftsmith.cli import chat

    write_text = chat.write_text

    def write(text: str) -> None:
        write_text(text)
        if text != "\n":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(chat, "write_text", write)
    outcome = cli("chat", "-m", roomy, "--max-tokens", "4000", "--ignore-eos", stdin="hi\nho\n")
    assert outcome.status == 130
    assert len(outcome.stdout.strip()) > 0
    assert outcome.stderr.count("tok/s") == 1
    assert "Traceback" not in outcome.stderr


def test_at_a_terminal_a_refused_turn_is_forgotten_and_the_talk_goes_on(
    cli: Cli, roomy: str, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["hi", "bad", "ho"])

    def read_line(_: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    start = Engine.start

    def refuse(self: Engine, prompts: Prompt, params: object = None) -> object:
        if _contents(prompts)[-1] == "bad":
            raise NumericsError("no such luck")
        return start(self, prompts, params)  # type: ignore[arg-type] # passed through as it came

    monkeypatch.setattr(Engine, "start", refuse)
    monkeypatch.setattr("draftsmith.cli.turns._typed", read_line)
    monkeypatch.setattr("draftsmith.cli.chat.is_terminal", lambda: True)
    monkeypatch.setattr("draftsmith.cli.turns.is_terminal", lambda: True)
    outcome = cli("chat", "-m", roomy, *_OPTIONS)
    assert outcome.status == 0
    assert "no such luck (the conversation is kept; /clear forgets it)" in outcome.stderr
    assert "bad" not in _contents(prompts[-1])
    assert _contents(prompts[-1])[-1] == "ho"


def test_turns_of_several_lines(cli: Cli, roomy: str, prompts: list[Prompt]) -> None:
    typed = 'one\\\ntwo\n"""three\n  four\n\nfive"""\n"""six"""\n//seven\n'
    assert cli("chat", "-m", roomy, *_OPTIONS, stdin=typed).status == 0
    said = [_contents(prompt)[-1] for prompt in prompts]
    assert said == ["one\ntwo", "three\n  four\n\nfive", "six", "/seven"]


@pytest.mark.parametrize("typed", ["one\\\n", '"""one\ntwo\n'])
def test_a_turn_that_never_ends_is_refused(cli: Cli, roomy: str, typed: str) -> None:
    assert "standard input ends within a turn" in cli("chat", "-m", roomy, stdin=typed).refusal()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/hepl", "unknown command /hepl: did you mean /help? /help lists them"),
        ("/usr/bin", "unknown command /usr/bin: /help lists them, // begins a turn with a slash"),
        ("/clear all", "/clear takes nothing after it, got 'all': leave it out"),
    ],
)
def test_an_unknown_command_is_refused(cli: Cli, roomy: str, typed: str, said: str) -> None:
    assert said in cli("chat", "-m", roomy, stdin=typed).refusal()


def test_help_lists_every_command_and_how_to_type(cli: Cli, roomy: str) -> None:
    outcome = cli("chat", "-m", roomy, "--quiet", stdin="/help\n")
    assert all(f"{name} " in outcome.stderr for name in COMMANDS)
    assert "backslash" in outcome.stderr
    assert outcome.stdout == ""


def test_the_systems_turn_is_shown_changed_and_ended(
    cli: Cli, roomy: str, prompts: list[Prompt]
) -> None:
    typed = '/system\none\n/system be kind\ntwo\n/system ""\nthree\n'
    outcome = cli("chat", "-m", roomy, "--system", "be brief", *_OPTIONS, stdin=typed)
    assert [_contents(prompt)[0] for prompt in prompts] == ["be brief", "be kind", "one"]
    told = [line for line in outcome.stderr.splitlines() if "system" in line]
    assert told == ["system: be brief", "system: be kind", "no system's turn"]


def test_stats_tell_of_answers_and_context(cli: Cli, roomy: str) -> None:
    told = cli("chat", "-m", roomy, *_OPTIONS, stdin="hello\n/stats\n").stderr
    assert "1 answers, 4 tokens" in told
    assert "of 8,192 tokens" in told


def test_a_full_context_drops_the_oldest_turns_and_says_so_once(
    cli: Cli, tiny: str, prompts: list[Prompt]
) -> None:
    lines = "".join(f"{number} {'x' * 30}\n" for number in range(6))
    outcome = cli("chat", "-m", tiny, "--system", "s", *_OPTIONS, stdin=lines)
    assert outcome.status == 0, outcome
    assert outcome.stderr.count("the context of 128 tokens is full") == 1
    last = _contents(prompts[-1])
    assert last[0] == "s"
    assert last[-1].startswith("5 ")
    kept = [int(turn[0]) for turn in last[1::2]]
    assert kept == list(range(kept[0], 6)), "whole exchanges go, the oldest first"
    assert kept[0] > 1


def test_an_answer_never_runs_past_the_context(cli: Cli, tiny: str) -> None:
    outcome = cli("chat", "-m", tiny, "--ignore-eos", stdin=f"{'x' * 100}\n")
    assert outcome.status == 0, outcome
    assert "[cut off" in outcome.stderr
