"""How ranks find each other, and what is refused before they look."""

import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from draftsmith.errors import InvalidRequestError, ParallelError
from draftsmith.models.settings import parallel_or_launched
from draftsmith.parallel.devices import check_devices
from draftsmith.parallel.failures import Failures
from draftsmith.parallel.meeting import Wires, accept, hear, reach
from draftsmith.parallel.torchrun import Launch, launch
from draftsmith.parallel.watch import Peer, Trouble, Watch
from draftsmith.parallel.wire import SocketWire

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks

_TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftsmith.parallel.meeting.START_S", 0.05)


@pytest.fixture
def pairs() -> Iterator[list[tuple[Peer, Wires]]]:
    """Two other ranks: what rank 0 has of them, and what they have."""
    with ExitStack() as stack:
        found: list[tuple[Peer, Wires]] = []
        for rank in (1, 2):
            ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
            near, far = (tuple(map(SocketWire, both)) for both in (ours, theirs))
            for one in (*near, *far):
                stack.callback(one.close)
            found.append((Peer(rank, near[0], near[1]), Wires(far[0], far[1])))
        yield found


def test_ranks_find_rank_0_in_a_folder_that_is_gone_afterwards() -> None:
    store, size = HashStore(), 3
    found: dict[int, tuple[Wires, str]] = {}

    def look(rank: int) -> None:
        found[rank] = reach(store, rank, size)

    threads = [threading.Thread(target=look, args=(rank,)) for rank in (2, 1)]
    for one in threads:
        one.start()
    peers, secret = accept(store, size)
    for one in threads:
        one.join()

    assert [one.rank for one in peers] == [1, 2]
    for peer in peers:
        wires, told = found[peer.rank]
        peer.orders.send(b"orders")
        peer.watch.send(b"watch")
        assert (wires.orders.receive(), wires.watch.receive()) == (b"orders", b"watch")
        assert told == secret
        for one in (peer.orders, peer.watch, *wires):
            one.close()
    assert not Path(store.get("draftsmith/wires").decode()[32:]).exists()


def test_a_rank_that_does_not_come_is_named(hurry: None) -> None:
    with pytest.raises(ParallelError, match=r"^rank 1 of 2 did not come within 0\.05 s: every"):
        accept(HashStore(), 2)


def test_a_folder_that_others_can_enter_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = HashStore()
    store.set("draftsmith/wires", "0" * 32 + str(tmp_path))

    with pytest.raises(ParallelError, match="is no folder of this user's alone"):
        reach(store, 1, 2)


def test_a_rank_that_does_not_do_a_step_of_its_start_is_named(
    pairs: list[tuple[Peer, Wires]],
) -> None:
    pairs[0][1].orders.send(b"started")

    with pytest.raises(ParallelError, match=r"^rank 2 of 3 did not start within 0\.05 s: load"):
        hear([one for one, _ in pairs], Failures(), "start", 0.05)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((None, None), "rank 1 of 3 ended: load the model again"),
        ((Trouble("lost", True, ""), None), "rank 2 of 3 ended: load the model again"),
        (
            (Trouble("lost", True, ""), Trouble("no room", False, "")),
            "rank 2 of 3 failed (no room): load the model again",
        ),
    ],
)
def test_the_rank_whose_end_made_the_others_fail_is_named(
    words: tuple[Trouble | None, ...], reason: str, pairs: list[tuple[Peer, Wires]]
) -> None:
    failures = Failures()
    watch = Watch([one for one, _ in pairs], failures)
    watch.start()

    for (_, wires), word in zip(pairs, words, strict=True):
        if word is not None:
            wires.watch.send(pickle.dumps(word))
        wires.watch.end()
    watch.join()

    assert failures.reason == reason


def test_ranks_that_end_as_they_are_meant_to_are_no_failure(
    pairs: list[tuple[Peer, Wires]],
) -> None:
    failures = Failures()
    watch = Watch([one for one, _ in pairs], failures)
    watch.start()

    watch.stop()
    for _, wires in pairs:
        wires.watch.end()
    watch.join()

    assert failures.reason is None


def test_torchrun_is_known_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch() is None
    assert parallel_or_launched(None) == 1
    for name, value in _TORCHRUN.items():
        monkeypatch.setenv(name, value)

    assert launch() == Launch(1, 2)
    assert parallel_or_launched(None) == parallel_or_launched(2) == 2
    with pytest.raises(InvalidRequestError, match=r"^parallel=3: torchrun has started 2 processes"):
        parallel_or_launched(3)


def test_several_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_TORCHRUN, "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InvalidRequestError, match="started 2 of 4 processes on this one"):
        launch()


def test_a_program_that_has_joined_by_itself_runs_models_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in _TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)

    assert parallel_or_launched(None) == 1


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "parallel=2 needs 2 GPUs, and there are 1"),
        ("cuda:1", "parallel=2 needs device cuda or cpu, got cuda:1"),
        ("mps", "parallel=2 needs device cuda or cpu, got mps"),
    ],
)
def test_more_ranks_than_devices_are_refused(
    device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    with pytest.raises(InvalidRequestError, match=words):
        check_devices(2, torch.device(device))
