"""A group of two processes on a CPU: from start to every kind of end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from draftsmith.errors import InvalidRequestError, ParallelError
from draftsmith.parallel import processes
from draftsmith.parallel.group import Group, current_group
from draftsmith.parallel.orders import Orders
from draftsmith.parallel.processes import end_group, start_group
from tests.parallel.objects import Tally

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks

_CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def no_group_left() -> Iterator[None]:
    yield
    end_group()


def _group() -> tuple[Group, Orders]:
    """The one that runs, or a new one where a test has ended it: starting one takes seconds."""
    group = start_group(2, _CPU)
    assert group.orders is not None
    return group, group.orders


def test_two_ranks_run_in_two_processes_and_exchange() -> None:
    group, orders = _group()
    tally = orders.make(Tally)

    processes = orders.ask(tally, "process")

    assert processes[0] == os.getpid() != processes[1]
    assert tally.exchange() == 3.0
    assert current_group() is group
    assert start_group(2, _CPU) is group


def test_a_group_of_another_size_is_refused() -> None:
    _group()

    with pytest.raises(InvalidRequestError, match=r"parallel=3 on cpu: .* on 2 ranks"):
        start_group(3, _CPU)


def test_a_forked_child_does_not_talk_on_its_parents_wires() -> None:
    _, orders = _group()
    tally = orders.make(Tally)

    child = os.fork()
    if child == 0:
        try:
            tally.add(1)
        except ParallelError:
            os._exit(17)
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 17
    assert orders.ask(tally, "so_far") == [[0], [0]]
    assert tally.exchange() == 3.0


def test_a_rank_that_is_killed_while_it_waits_is_named_and_the_next_group_works() -> None:
    group, orders = _group()
    tally = orders.make(Tally)
    heard: list[str] = []
    group.on_failure.append(lambda: heard.append("failed"))

    os.kill(orders.ask(tally, "process")[1], signal.SIGKILL)
    orders.failures.settle(5.0)
    with pytest.raises(ParallelError, match=r"^rank 1 of 2 ended \(signal SIGKILL\): load the mod"):
        tally.add(1)

    assert heard == ["failed"]
    _, orders = _group()
    assert orders.ask(orders.make(Tally, 5), "so_far") == [[5], [5]]


def test_a_rank_that_is_killed_amid_an_exchange_is_named() -> None:
    _, orders = _group()
    tally = orders.make(Tally)
    process = orders.ask(tally, "process")[1]
    tally.exchange_alone(1)

    os.kill(process, signal.SIGKILL)
    with pytest.raises(ParallelError, match=r"^rank 1 of 2 ended \(signal SIGKILL\): load the mod"):
        tally.exchange()

    assert not os.path.exists(f"/proc/{process}")


def test_an_error_of_a_rank_ends_the_exchange_that_rank_0_waits_in() -> None:
    _, orders = _group()
    tally = orders.make(Tally)
    tally.fail((1,))

    with pytest.raises(
        ParallelError, match=r"^rank 1 of 2 failed \(ZeroDivisionError: wrong\): load the mod"
    ):
        tally.exchange_alone(0)


def test_an_error_of_rank_0_ends_the_others_which_wait_for_it() -> None:
    _, orders = _group()
    tally = orders.make(Tally)
    process = orders.ask(tally, "process")[1]
    tally.exchange_alone(1)

    with pytest.raises(ZeroDivisionError):
        tally.fail((0,))

    # By itself: nobody ends the group here.
    deadline = time.monotonic() + 5.0
    while os.path.exists(f"/proc/{process}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{process}")
    with pytest.raises(ParallelError, match=r"^rank 0 failed amid what all ranks do"):
        tally.add(1)


def test_ends_are_orderly_and_models_of_an_ended_group_say_so() -> None:
    _, orders = _group()
    tally = orders.make(Tally)
    process = orders.ask(tally, "process")[1]

    end_group()

    assert current_group() is None
    assert tally.has_let_go, "before torch's process group is left"
    assert not os.path.exists(f"/proc/{process}")
    with pytest.raises(ParallelError, match="have ended: load the model again"):
        tally.add(1)


def test_ctrl_c_does_not_cut_off_the_end_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "end_group", lambda: os.kill(os.getpid(), signal.SIGINT))
    # A group that an earlier test has started is not at its end: it would have this process ended.
    monkeypatch.setattr(processes, "_running", [])
    before = signal.getsignal(signal.SIGINT)
    try:
        processes._end_at_exit()  # pyright: ignore[reportPrivateUsage]
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.signal(signal.SIGINT, before)


_PROGRAM = """
import sys, threading, torch
from draftsmith.parallel.processes import start_group
from tests.parallel.objects import Tally

def main():
    orders = start_group(2, torch.device("cpu")).orders
    tally = orders.make(Tally)
    print(*orders.ask(tally, "process"), flush=True)
    {ending}

main()
"""
_BUSY = """threading.Thread(
        target=lambda: [tally.exchange() for _ in iter(int, 1)], daemon=True
    ).start()
    tally.add(1)"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise ZeroDivisionError", 1),
        ("tally.fail((0,))", 1),
        (_BUSY, 0),
        ("torch.distributed.destroy_process_group = lambda: threading.Event().wait()", 0),
    ],
)
def test_however_a_program_ends_its_ranks_do(ending: str, status: int) -> None:
    done = subprocess.run(
        (sys.executable, "-c", _PROGRAM.format(ending=ending)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == status, done.stderr
    for process in done.stdout.split():
        assert not os.path.exists(f"/proc/{process}")
