"""Orders, over threads that are ranks: what rank 0 does, the others do."""

import contextlib
import gc
import pickle
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from draftsmith.errors import InvalidRequestError, ParallelError
from draftsmith.parallel.obeying import obey
from draftsmith.parallel.orders import Orders, make_beside
from draftsmith.parallel.wire import SocketWire
from tests.parallel.objects import Pair, Tally, interrupted_tally, refused_tally

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As a terminal has it: what runs in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Rank(threading.Thread):
    """Obeys, as a process would."""

    def __init__(self, rank: int) -> None:
        super().__init__(name=f"rank {rank}")
        ours, theirs = socket.socketpair()
        self.wire, self._wire = SocketWire(ours), SocketWire(theirs)
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Until there is nothing more to do."""
        try:
            obey(self._wire)
        except Exception as error:
            self.error = error
        self._wire.end()

    def close(self) -> None:
        """End it."""
        self.wire.end()
        self.join()
        self.wire.close()
        self._wire.close()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_Rank]]:
    # Nobody watches these ranks, to say more of them than that they are gone.
    monkeypatch.setattr("draftsmith.parallel.orders._SETTLING_S", 0.0)
    found = [_Rank(1), _Rank(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture
def orders(ranks: list[_Rank]) -> Orders:
    return Orders([one.wire for one in ranks])


def test_what_rank_0_calls_every_rank_calls_in_its_order(orders: Orders) -> None:
    tally = orders.make(Tally, 7)

    for number in range(50):
        assert tally.add(number) == number

    assert orders.ask(tally, "so_far") == 3 * [[7, *range(50)]]


def test_a_call_within_a_call_is_part_of_it(orders: Orders) -> None:
    tally = orders.make(Tally)

    tally.add_twice(4)

    assert orders.ask(tally, "so_far") == 3 * [[0, 4, 4]]


def test_a_shared_object_in_an_order_is_each_ranks_own(orders: Orders) -> None:
    tally = orders.make(Tally)

    pair = orders.make(Pair, tally)

    assert pair.tally is tally
    assert orders.ask(pair, "ranks") == [(0, 0), (1, 1), (2, 2)]


def test_an_object_is_made_beside_another_on_the_same_ranks(orders: Orders) -> None:
    beside = make_beside(orders.make(Tally), Tally, 3)

    assert orders.ask(beside, "so_far") == 3 * [[3]]


def test_an_object_is_made_beside_one_of_a_single_rank_there_alone() -> None:
    assert make_beside(Tally(), Tally, 3).told is None


def test_threads_of_rank_0_give_one_order_to_all(orders: Orders) -> None:
    tally = orders.make(Tally)

    def add(start: int) -> None:
        for number in range(start, start + 50):
            tally.add(number)

    threads = [threading.Thread(target=add, args=(start,)) for start in (0, 100, 200)]

    for one in threads:
        one.start()
    for one in threads:
        one.join()

    found = orders.ask(tally, "so_far")
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == sorted([0, *range(50), *range(100, 150), *range(200, 250)])


@pytest.mark.parametrize("who", [(0,), (1,), (2,), (0, 1, 2), (1, 2)])
def test_what_one_rank_cannot_make_none_has(orders: Orders, who: tuple[int, ...]) -> None:
    tally = orders.make(Tally)
    kind = InvalidRequestError if 0 in who else ParallelError
    text = f"rank {who[0]} has no room" if 0 in who else f"^rank {who[0]} of 3: .* no room for it$"

    with pytest.raises(kind, match=text):
        orders.make(refused_tally, who, 5)

    gc.collect()
    assert orders.ask(tally, "num_alive") == [1, 1, 1]
    assert orders.ask(orders.make(refused_tally, (), 5), "so_far") == 3 * [[5]]


def test_what_rank_0_lets_go_of_the_others_do(orders: Orders) -> None:
    tally, other = orders.make(Tally), orders.make(Tally)

    del other
    gc.collect()
    tally.add(1)

    assert orders.ask(tally, "num_alive") == [1, 1, 1]


def test_what_another_object_still_knows_stays(orders: Orders) -> None:
    pair = orders.make(Pair, orders.make(Tally))
    gc.collect()

    assert orders.ask(pair, "ranks") == [(0, 0), (1, 1), (2, 2)]


def test_a_call_that_all_refuse_leaves_the_group_whole(orders: Orders) -> None:
    tally = orders.make(Tally)

    with pytest.raises(InvalidRequestError):
        tally.refuse((0, 1, 2))
    tally.add(1)

    assert orders.ask(tally, "so_far") == 3 * [[0, 1]]


@pytest.mark.parametrize("who", [(0,), (1,), (0, 2)])
def test_a_call_that_only_some_refuse_ends_the_ranks_that_differ(
    ranks: list[_Rank], orders: Orders, who: tuple[int, ...]
) -> None:
    tally = orders.make(Tally)

    with contextlib.suppress(InvalidRequestError):
        tally.refuse(who)
    with contextlib.suppress(ParallelError):
        tally.add(1)

    differing = [one for i, one in enumerate(ranks, 1) if (i in who) != (0 in who)]
    for one in differing:
        one.join(5)
        assert isinstance(one.error, ParallelError)
    assert differing
    assert all(one.error is None for one in ranks if one not in differing)


def test_an_answer_that_all_refuse_leaves_the_group_whole(orders: Orders) -> None:
    tally = orders.make(Tally)

    with pytest.raises(InvalidRequestError):
        orders.ask(tally, "refused_so_far", (0, 1, 2))

    assert orders.ask(tally, "so_far") == 3 * [[0]]


@pytest.mark.parametrize("who", [(0,), (2,)])
def test_an_answer_that_only_some_refuse_ends_the_group(
    orders: Orders, who: tuple[int, ...]
) -> None:
    tally = orders.make(Tally)

    with pytest.raises((InvalidRequestError, ParallelError)):
        orders.ask(tally, "refused_so_far", who)

    with pytest.raises(ParallelError, match=f"^rank {who[0]} .*: load the model again$"):
        tally.add(1)


def test_after_an_error_of_rank_0_nothing_more_is_told(orders: Orders) -> None:
    tally = orders.make(Tally)

    with pytest.raises(ZeroDivisionError):
        tally.fail((0,))

    with pytest.raises(ParallelError, match=r"rank 0 failed .*ZeroDivisionError: wrong"):
        tally.add(1)


def test_an_error_of_another_rank_ends_it(ranks: list[_Rank], orders: Orders) -> None:
    tally = orders.make(Tally)

    tally.fail((1,))
    ranks[0].join(5)

    assert isinstance(ranks[0].error, ZeroDivisionError)


def test_a_rank_that_is_gone_is_named(ranks: list[_Rank], orders: Orders) -> None:
    tally = orders.make(Tally)
    ranks[1].close()
    orders.failures.fail("rank 2 of 3 ended")

    with pytest.raises(ParallelError, match="rank 2 of 3 ended: load the model again"):
        tally.add(1)
    with pytest.raises(ParallelError, match="rank 2 of 3 ended: load the model again"):
        orders.make(Tally)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_until_rank_0_has_done_its_part(orders: Orders) -> None:
    tally = orders.make(Tally)

    with pytest.raises(KeyboardInterrupt):
        tally.add_with_ctrl_c(1)

    tally.add(2)
    assert orders.ask(tally, "so_far") == 3 * [[0, 1, 2]]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_no_answer_behind(orders: Orders) -> None:
    tally = orders.make(Tally, 1)

    with pytest.raises(KeyboardInterrupt):
        orders.ask(tally, "interrupted_so_far")
    with pytest.raises(KeyboardInterrupt):
        orders.make(interrupted_tally)

    gc.collect()
    assert orders.ask(tally, "so_far") == 3 * [[1]]
    assert orders.ask(tally, "num_alive") == 3 * [1]


def test_failures_are_told_once_and_the_first_counts(orders: Orders) -> None:
    heard: list[str | None] = []
    orders.failures.on_failure.append(lambda: heard.append(orders.failures.reason))

    orders.failures.fail("one")
    orders.failures.fail("two")

    assert heard == ["one: load the model again"]


def test_a_message_of_any_length_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = SocketWire(ours), SocketWire(theirs)
    messages = [b"", b"a", b"b" * 3_000_000, pickle.dumps(1)]
    thread = threading.Thread(target=lambda: [sender.send(one) for one in messages])
    thread.start()

    assert [receiver.receive() for _ in messages] == messages
    thread.join()

    sender.end()
    with pytest.raises(EOFError):
        receiver.receive()
    with pytest.raises(OSError, match="Broken pipe"):
        sender.send(b"late")
    sender.close()
    receiver.close()
