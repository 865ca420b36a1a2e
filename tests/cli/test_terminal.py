"""What a model, a file's name or a template says reaches a terminal without control sequences."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from draftsmith.cli import messages, progress, stdout, terminal
from draftsmith.cli.grid import print_table
from draftsmith.report.page import Table
from tests.cli.outcome import Cli

_ESCAPE, _BELL = "\x1b", "\x07"
HOSTILE = f"a{_ESCAPE}]0;mine{_BELL}b\x9b2Jc\r\x7f\b"


@pytest.fixture
def look_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the captured streams say, from now on, that they are a terminal's."""

    def begin() -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)

    return begin


def _has_controls(text: str) -> bool:
    return any(
        (code < 32 and chr(code) not in "\n\t") or 127 <= code < 160 for code in map(ord, text)
    )


def test_every_control_character_has_a_name_and_nothing_else_changes() -> None:
    everything = "".join(map(chr, range(0x250)))
    shown = terminal.harmless(everything)
    assert not _has_controls(shown)
    assert terminal.harmless(shown) == shown
    kept = "\t\n" + everything[0x20:0x7F] + everything[0xA0:]
    assert terminal.harmless(kept) == kept
    assert terminal.harmless(HOSTILE) == r"a␛]0;mine␇b\x9b2Jc␍␡␈"


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    stdout.write_text(HOSTILE)
    terminal.write_stderr(HOSTILE)
    assert capsys.readouterr() == (HOSTILE, HOSTILE)


def test_a_terminal_gets_names(
    capsys: pytest.CaptureFixture[str], look_on: Callable[[], None]
) -> None:
    look_on()
    stdout.write_text(HOSTILE)
    messages.warn(f"{HOSTILE} it is")
    captured = capsys.readouterr()
    assert captured.out == terminal.harmless(HOSTILE)
    assert not _has_controls(captured.err)


def test_styles_reach_a_terminal_and_sequences_of_a_text_do_not(
    capsys: pytest.CaptureFixture[str], look_on: Callable[[], None]
) -> None:
    look_on()
    print_table(Table(HOSTILE, ["name", HOSTILE], [[HOSTILE, "1"]]))
    messages.notes().print(HOSTILE, style="dim", markup=False)
    captured = capsys.readouterr()
    for text in captured:
        assert "\x1b[" in text  # ours
        assert "\x1b]" not in text
        assert not _has_controls(text.replace("\x1b[", ""))
        assert "␛]0;mine" in text


def test_a_bar_shows_a_hostile_name_by_names(
    capsys: pytest.CaptureFixture[str], look_on: Callable[[], None]
) -> None:
    look_on()
    with progress.working(HOSTILE):
        pass
    shown = capsys.readouterr().err
    assert "␛]0;mine" in shown
    assert f"{_ESCAPE}]" not in shown


def test_a_file_name_in_a_refusal_is_harmless(
    cli: Cli, look_on: Callable[[], None], tmp_path: Path
) -> None:
    look_on()
    outcome = cli("generate", "hi", "-m", f"{tmp_path}/{HOSTILE}.gguf")
    assert "␛]0;mine" in outcome.stderr
    assert not _has_controls(outcome.stderr)


def test_a_templates_message_is_harmless(
    cli: Cli, look_on: Callable[[], None], tiny: str, tmp_path: Path
) -> None:
    look_on()
    place = Path(shutil.copytree(tiny, tmp_path / "rude"))
    template = "{{ raise_exception('no\x1b[2J thanks') }}"
    (place / "chat_template.jinja").write_text(template)
    outcome = cli("generate", "hi", "-q", "-n", "2", "-m", str(place), "--chat")
    assert "no␛[2J thanks" in outcome.stderr
    assert not _has_controls(outcome.stderr)


@pytest.mark.long
def test_a_models_escapes_are_shown_at_a_real_terminal_and_piped_raw(tiny: str) -> None:
    vocabulary = json.loads((Path(tiny) / "tokenizer.json").read_text())["model"]["vocab"]
    escape = vocabulary[chr(256 + 0x1B)]  # as byte-level tokenizers write the byte 0x1b
    command = [sys.executable, "-m", "draftsmith", "generate", "hi", "-q", "-n", "3", "-m", tiny]
    command += ["--allow-token", str(escape)]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert piped.stdout == b"\x1b\x1b\x1b\n"
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while select.select([master], [], [], 120.0)[0]:
        try:
            shown += os.read(master, 4096)
        except OSError:  # the program has ended
            break
    assert process.wait() == 0
    os.close(master)
    assert "␛␛␛" in shown.decode()
    assert b"\x1b" not in shown
