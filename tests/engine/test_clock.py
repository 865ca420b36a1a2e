"""Collections of garbage are nobody's time."""

import gc
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from draftsmith.engine import clock


@pytest.fixture(name="hands")
def _hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A clock that a collection moves by 7 seconds, and nothing else does."""
    hands = SimpleNamespace(now=100.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: hands.now))

    def move(phase: str, info: dict[str, int]) -> None:
        hands.now += 7.0 if phase == "stop" else 0.0

    # Before the engine's own, which sees the end of the collection behind it.
    gc.callbacks.insert(0, move)
    gc.disable()
    yield hands
    gc.enable()
    gc.callbacks.remove(move)


def test_it_stands_still_while_garbage_is_collected(hands: SimpleNamespace) -> None:
    start = clock.perf_counter()
    gc.collect()
    assert hands.now >= 107
    assert clock.perf_counter() == start
    hands.now += 2.0
    assert clock.perf_counter() == start + 2


def test_another_threads_collection_is_this_ones_time(hands: SimpleNamespace) -> None:
    """Passes go on meanwhile: what they take must not seem less."""
    start = clock.perf_counter()
    other = threading.Thread(target=gc.collect)
    other.start()
    other.join()
    assert clock.perf_counter() == start + (hands.now - 100)
    assert hands.now >= 107
