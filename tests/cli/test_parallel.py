"""`--tensor-parallel`: a model over two processes of this machine, and their every end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from draftsmith.parallel.processes import end_group
from tests.cli.outcome import Cli
from tests.grids import thinned

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks

_RANKS = ("--tensor-parallel", "2", "--device", "cpu", "--dtype", "float32")
_LONG = ("-n", "8000", "--ignore-eos", "--gamma", "0", "-q")
_MARK = "DRAFTSMITH_TEST_MARK"


@pytest.fixture(scope="module", autouse=True)
def no_group_left() -> Iterator[None]:
    yield
    end_group()


def _start(mark: str, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """`draftsmith` in a process of its own, whose children are found by a mark."""
    return subprocess.Popen(
        (sys.executable, "-m", *launcher, "draftsmith", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, _MARK: mark, "OMP_NUM_THREADS": "1"},
    )


def _marked(mark: str) -> set[int]:
    """The processes that a test has started, and theirs, which are not ended."""
    wanted = f"{_MARK}={mark}".encode()
    found: set[int] = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            is_ended = place.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            is_marked = wanted in place.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if is_marked and not is_ended:
            found.add(int(place.name))
    return found


def _all_go(mark: str) -> bool:
    """Wait for the end of all of them; how long it takes is nobody's matter."""
    deadline = time.monotonic() + 60
    while _marked(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _marked(mark)


def _refusals(err: bytes) -> list[str]:
    """What is said, but for the warning that this is slow."""
    return [line for line in err.decode().splitlines() if "in plain torch" not in line]


@pytest.mark.parametrize(
    ("kind", "law"),
    thinned(
        ["none", "prompt-lookup", "model"],
        [("--temp", "0"), ("--temp", "0.9", "--seed", "5")],
        every=2,
    ),
)
def test_ranks_write_the_text_of_one_process(
    kind: str, law: tuple[str, ...], cli: Cli, roomy: str, draft: str
) -> None:
    named = draft if kind == "model" else kind
    asked = ("generate", "hi", "-m", roomy, "-n", "70", "--ignore-eos", *law, "--json")
    one = cli(*asked, "--dtype", "float32", "--gamma", "0").document()

    ranks = cli(*asked, *_RANKS, "--draft", named, "-q")

    assert ranks.document()["token_ids"] == one["token_ids"]
    assert ranks.document()["runtime"]["tensor_parallel"] == 2


def test_a_cpu_is_told_that_one_process_is_faster(
    cli: Cli, tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = cli("generate", "hi", "-m", tiny, "-n", "2", *_RANKS)

    assert outcome.status == 0
    assert "one process has kernels that are many times faster" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-tp 0", "-tp must be between 1 and 64, got 0"),
        ("-tp 65", "-tp must be between 1 and 64, got 65"),
        ("-tp 2 --device cpu --dtype int8", "--dtype int8 is for one process, and -tp 2"),
        (
            "-tp 2 --device cpu --dtype bfloat16",
            "--dtype must be float32 or auto with -tp 2 on a CPU",
        ),
        ("-tp 2 --device cpu --activations float32", "--activations float32 is for quantised"),
        ("-tp 2 --device cpu --branches 2 --draft prompt-lookup", "--branches 2 is for a target"),
        ("-tp 2 --device cpu --draft-vocab-size 9 --draft DRAFT", "--draft-vocab-size 9 is for a"),
    ],
)
def test_what_ranks_cannot_do_is_refused_by_name(
    arguments: str, words: str, cli: Cli, tiny: str, draft: str
) -> None:
    outcome = cli("generate", "hi", "-m", tiny, "-q", *arguments.replace("DRAFT", draft).split())

    assert outcome.status == 2
    assert words in outcome.stderr
    assert len(_refusals(outcome.stderr.encode())) == 1


@pytest.mark.long
def test_heads_that_ranks_cannot_share_are_refused(cli: Cli, tiny: str) -> None:
    end_group()

    outcome = cli("generate", "hi", "-m", tiny, "-tp", "3", "--device", "cpu")
    end_group()

    assert outcome.status == 2
    assert "num_heads is 4, which 3 ranks cannot share" in outcome.stderr


def test_a_rank_that_is_killed_in_mid_text_ends_it_with_one_line(roomy: str) -> None:
    with _start("killed", "generate", "hi", "-m", roomy, *_RANKS, *_LONG) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        (other,) = _marked("killed") - {process.pid}
        os.kill(other, signal.SIGKILL)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 2
    (line,) = _refusals(err)
    assert line == "draftsmith: error: rank 1 of 2 ended (signal SIGKILL): load the model again"
    assert _all_go("killed")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_rank_0_ends_no_process_is_left(number: signal.Signals, roomy: str) -> None:
    with _start(number.name, "generate", "hi", "-m", roomy, *_RANKS, *_LONG) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        assert len(_marked(number.name)) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=60)

    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not _refusals(err)
    assert _all_go(number.name)


@pytest.mark.long
def test_torchrun_starts_the_ranks(tiny: str, cli: Cli) -> None:
    asked = ("generate", "hi", "-m", tiny, "-n", "20", "--ignore-eos", "--temp", "0")
    one = cli(*asked, "--dtype", "float32")
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "-m")

    with _start("torchrun", *asked, *_RANKS[2:], "-q", launcher=launcher) as process:
        out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert out.decode() == one.stdout
    assert _all_go("torchrun")


@pytest.mark.long
def test_a_model_over_ranks_is_certified(cli: Cli, tiny: str) -> None:
    # Few samples, and a law that may be far off: the proof of the verifiers is the same everywhere.
    few = ("--quick", "--samples", "60", "--detects", "0.9", "--power", "0.5")
    outcome = cli("certify", "-m", tiny, *few, *_RANKS)
    assert outcome.status == 0, outcome.stdout + outcome.stderr
