"""The benchmark's client: it sends on time, counts tokens, and notes what fails."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from benchmarks.serve_client import Answer, arrivals, ask, in_turn, on_schedule, summary

from draftsmith.serve.settings import ServeSettings
from tests.serve import live

_BODY: dict[str, Any] = {"prompt": "the quick", "max_tokens": 12, "seed": 1, "ignore_eos": True}


def test_a_stream_is_read_as_a_client_of_the_api_reads_it() -> None:
    with live.serving(live.engine(live.model_draft(), gamma=3)) as server:
        whole = server.complete("the quick", max_tokens=12, seed=1, ignore_eos=True)
        found = asyncio.run(ask(server.address, _BODY))
        assert found.error is None
        assert found.text == whole.texts[0]
        assert found.num_tokens == 12
        assert found.num_prompt_tokens == whole.body["usage"]["prompt_tokens"]
        assert found.due_at < found.first_at <= found.last_at


@pytest.mark.parametrize(("longest", "told"), [(0, "status 400"), (400, "took more")])
def test_what_fails_is_noted(longest: int, told: str) -> None:
    settings = ServeSettings(port=0, request_timeout_s=0.01)
    with live.serving(live.engine(), settings) as server:
        found = asyncio.run(ask(server.address, _BODY | {"max_tokens": longest}))
        assert told in (found.error or "")
    found = asyncio.run(ask(server.address, _BODY))
    assert found.error is not None


def test_requests_are_sent_when_they_are_due_whatever_the_server_does() -> None:
    async def slow(number: int, due_at: float | None) -> Answer:
        assert due_at is not None
        sent_at = time.perf_counter()
        await asyncio.sleep(0.3)
        return Answer(due_at, first_at=sent_at, last_at=sent_at, num_tokens=1, text=str(number))

    found = asyncio.run(on_schedule(slow, [0.0, 0.01, 0.02]))
    assert [one.text for one in found] == ["0", "1", "2"]
    # The first one's answer is not waited for.
    assert max(one.first_at for one in found) - found[0].due_at < 0.25


def test_so_many_streams_run_at_once_and_no_more() -> None:
    running: list[int] = []
    most = 0

    async def one(number: int, due_at: float | None) -> Answer:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0.001)
        running.remove(number)
        return Answer(0.0)

    assert len(asyncio.run(in_turn(one, 10, 3))) == 10
    assert most == 3


def test_arrivals_come_at_their_rate_and_are_the_same_each_time() -> None:
    found = arrivals(20_000, 5.0, seed=1)
    assert found == arrivals(20_000, 5.0, seed=1) != arrivals(20_000, 5.0, seed=2)
    assert all(a < b for a, b in itertools.pairwise(found))
    # Of a Poisson process, 20,000 gaps' mean is within 5 standard errors but once in a million.
    assert found[-1] / 19_999 == pytest.approx(0.2, rel=5 / 20_000**0.5)


def test_a_summary_counts_good_requests_by_both_bars() -> None:
    quick = Answer(0.0, first_at=0.1, last_at=1.1, num_tokens=11)
    late = Answer(0.0, first_at=0.9, last_at=1.9, num_tokens=11)
    slow = Answer(0.0, first_at=0.1, last_at=2.0, num_tokens=11)
    wrong = Answer(0.0, error="no")
    found = summary([quick, late, slow, wrong], first_s=0.5, each_s=0.15)
    assert (found["num_requests"], found["num_failed"], found["errors"]) == (4, 1, ["no"])
    assert found["tokens_per_s"] == pytest.approx(33 / 2.0)
    assert found["goodput"]["requests_per_s"] == pytest.approx(1 / 2.0)
    assert found["first_s"] == {"p50": 0.1, "p99": 0.9, "mean": pytest.approx(1.1 / 3)}
    assert found["each_s"]["p50"] == pytest.approx(0.1)
