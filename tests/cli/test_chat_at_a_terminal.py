"""`draftsmith chat` driven through a terminal, as someone at a keyboard drives it."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_WAIT_S = 120.0
_CTRL_C = b"\x03"
_CTRL_D = b"\x04"
# Its standard input becomes its session's terminal, and its output too; then it is the program.
# A suite that a shell runs in the background has Ctrl-C ignored, and so would what it starts.
_AT_THE_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.login_tty(0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class _Keyboard:
    """A program in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        # By descriptor, not by name: a container may show another /dev/pts than the terminal's.
        command = (sys.executable, "-c", _AT_THE_TERMINAL, "-m", "draftsmith", *arguments)
        environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=slave, env=environment)
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def press(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def wait_for(self, text: str) -> str:
        """What was shown up to a text that comes after what was waited for before."""
        end = time.monotonic() + _WAIT_S
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} never came: {self.shown!r}"
            if select.select([self._master], [], [], 1.0)[0]:
                try:
                    self.shown += os.read(self._master, 4096).decode(errors="replace")
                except OSError:  # the program has ended
                    assert text in self.shown, f"{text!r} never came: {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def wait_for_prompt(self) -> None:
        """Until the program listens: readline shows its prompt a little before it does."""
        self.wait_for("> ")
        num_asleep = 0
        while num_asleep < 3:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            num_asleep = num_asleep + 1 if state == "S" else 0
            time.sleep(0.02)

    def wait_for_letters(self, count: int) -> None:
        """Until so many were shown, whatever they are."""
        while len(re.sub(r"\s", "", self.shown)) < count:
            self.shown += os.read(self._master, 64).decode(errors="replace")

    def end(self) -> int:
        return self.process.wait(timeout=_WAIT_S)


def test_a_whole_talk(roomy: str) -> None:
    with _Keyboard(
        "chat", "-m", roomy, "--max-tokens", "6000", "--ignore-eos", "--temp", "1"
    ) as talk:
        talk.wait_for("/help lists the commands")
        talk.wait_for_prompt()
        talk.press(_CTRL_C)
        talk.wait_for("Ctrl-C again, or Ctrl-D, leaves; the conversation is kept")
        talk.wait_for_prompt()
        talk.press("/hlep\n")
        talk.wait_for("unknown command /hlep: did you mean /help?")
        talk.wait_for_prompt()
        talk.press("one\\\n")
        talk.wait_for(". ")
        talk.press("two\n")
        talk.wait_for("two")
        talk.wait_for_letters(20)
        talk.press(_CTRL_C)
        talk.wait_for("[stopped]")
        talk.wait_for("tok/s")
        talk.wait_for_prompt()
        talk.press("/stats\n")
        talk.wait_for("1 answers, ")
        talk.wait_for_prompt()
        talk.press(_CTRL_C)
        talk.wait_for("Ctrl-C again")
        talk.wait_for_prompt()
        talk.press(_CTRL_C)
        assert talk.end() == 0


@pytest.mark.long
def test_ctrl_d_leaves(roomy: str) -> None:
    with _Keyboard("chat", "-m", roomy, "--quiet") as talk:
        talk.wait_for_prompt()
        talk.press(_CTRL_D)
        assert talk.end() == 0
